//! Which interfaces this host serves, and linking exactly those that were granted.
//!
//! An interface that is not in the list given is not in the linker: the component cannot even name it. WASI interfaces
//! of the baseline are served empty: no environment, no files, no standard input.

use portcullis_policies::{Grant, Link};
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{ResourceTable, WasiView};
use wasmtime_wasi_http::p2::bindings::http;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView};
use wasmtime_wasi_io::bindings::wasi::io;

use super::context::Ctx;
use super::wit::{messaging, portcullis, wasmcloud};

type Add = fn(&mut Linker<Ctx>) -> wasmtime::Result<()>;

/// Every interface that this host has an implementation of, without its version.
const SERVED: &[(&str, Add)] = &[
    ("wasi:io/error", |l| io::error::add_to_linker::<Ctx, Io>(l, |ctx| ctx.ctx().table)),
    ("wasi:io/poll", |l| io::poll::add_to_linker::<Ctx, Io>(l, |ctx| ctx.ctx().table)),
    ("wasi:io/streams", |l| io::streams::add_to_linker::<Ctx, Io>(l, |ctx| ctx.ctx().table)),
    ("wasi:clocks/monotonic-clock", |l| clocks::monotonic_clock::add_to_linker::<Ctx, WasiClocks>(l, Ctx::clocks)),
    ("wasi:clocks/wall-clock", |l| clocks::wall_clock::add_to_linker::<Ctx, WasiClocks>(l, Ctx::clocks)),
    ("wasi:random/random", |l| random::random::add_to_linker::<Ctx, WasiRandom>(l, |ctx| ctx.ctx().ctx.random())),
    ("wasi:random/insecure", |l| random::insecure::add_to_linker::<Ctx, WasiRandom>(l, |ctx| ctx.ctx().ctx.random())),
    ("wasi:random/insecure-seed", |l| {
        random::insecure_seed::add_to_linker::<Ctx, WasiRandom>(l, |ctx| ctx.ctx().ctx.random())
    }),
    ("wasi:cli/environment", |l| cli::environment::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/exit", |l| cli::exit::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/stdin", |l| cli::stdin::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/stdout", |l| cli::stdout::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/stderr", |l| cli::stderr::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/terminal-input", |l| cli::terminal_input::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/terminal-output", |l| cli::terminal_output::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/terminal-stdin", |l| cli::terminal_stdin::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/terminal-stdout", |l| cli::terminal_stdout::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:cli/terminal-stderr", |l| cli::terminal_stderr::add_to_linker::<Ctx, WasiCli>(l, Ctx::cli)),
    ("wasi:filesystem/types", |l| filesystem::types::add_to_linker::<Ctx, WasiFilesystem>(l, Ctx::filesystem)),
    ("wasi:filesystem/preopens", |l| filesystem::preopens::add_to_linker::<Ctx, WasiFilesystem>(l, Ctx::filesystem)),
    ("wasi:http/types", |l| {
        let options = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
        http::types::add_to_linker::<Ctx, WasiHttp>(l, &(&options).into(), Ctx::http)
    }),
    ("wasi:http/outgoing-handler", |l| http::outgoing_handler::add_to_linker::<Ctx, WasiHttp>(l, Ctx::http)),
    ("portcullis:identity/types", |l| {
        portcullis::portcullis::identity::types::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/workload", |l| {
        portcullis::portcullis::identity::workload::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/jwt", |l| {
        portcullis::portcullis::identity::jwt::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/x509", |l| {
        portcullis::portcullis::identity::x509::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/signing", |l| {
        portcullis::portcullis::identity::signing::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/key-export", |l| {
        portcullis::portcullis::identity::key_export::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/bundle", |l| {
        portcullis::portcullis::identity::bundle::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("portcullis:identity/peer", |l| {
        portcullis::portcullis::identity::peer::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("wasmcloud:identity/store", |l| {
        wasmcloud::wasmcloud::identity::store::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("wasmcloud:messaging/types", |l| {
        messaging::wasmcloud::messaging::types::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
    ("wasmcloud:messaging/consumer", |l| {
        messaging::wasmcloud::messaging::consumer::add_to_linker::<Ctx, HasSelf<Ctx>>(l, |ctx| ctx)
    }),
];

struct Io;

impl wasmtime::component::HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// Whether this host has an implementation of an interface, whatever its version.
pub fn is_served(interface: &str) -> bool {
    let name = without_version(interface);
    SERVED.iter().any(|(served, _)| *served == name)
}

/// Links the interfaces that were granted, each once, and nothing else.
pub fn link(linker: &mut Linker<Ctx>, grants: &[Grant<Link>]) -> wasmtime::Result<()> {
    link_named(linker, grants.iter().map(Grant::interface))
}

fn link_named<'a>(linker: &mut Linker<Ctx>, interfaces: impl Iterator<Item = &'a str>) -> wasmtime::Result<()> {
    let mut wanted: Vec<&str> = interfaces.map(without_version).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for name in wanted {
        match SERVED.iter().find(|(served, _)| *served == name) {
            Some((_, add)) => add(linker)?,
            None => wasmtime::bail!("this host does not serve {}", name.escape_debug()),
        }
    }
    Ok(())
}

fn without_version(interface: &str) -> &str {
    interface.split_once('@').map_or(interface, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_interface_links_alone_and_all_link_together() {
        let engine = crate::runtime::engine::compiler().unwrap();
        link_named(&mut Linker::new(&engine), SERVED.iter().map(|(name, _)| *name)).unwrap();
        for (name, _) in SERVED {
            let versioned = format!("{name}@9.9.9");
            link_named(&mut Linker::new(&engine), [versioned.as_str(), name].into_iter()).unwrap();
        }
    }

    #[test]
    fn an_interface_that_is_not_served_is_named() {
        let engine = crate::runtime::engine::compiler().unwrap();
        let error = link_named(&mut Linker::new(&engine), ["wasi:sockets/tcp@0.2.0"].into_iter()).unwrap_err();
        assert!(error.to_string().contains("wasi:sockets/tcp"));
        assert!(!is_served("wasi:sockets/tcp@0.2.0") && is_served("wasi:http/types@0.2.3"));
    }
}
