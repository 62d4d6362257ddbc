//! Measures decisions and reloads at 10, 1,000 and 10,000 grants over 100 components. Run it with `--release`.
//!
//! A destination is canonicalised for each decision, as a request does it. The component that is asked has all the
//! destinations that fall to it: with 10,000 grants a hundred. `fresh` is a request that was not asked before under this
//! policy, so that Cedar decides it; `connect` is decided by Cedar each time. Then what slices keep in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_policies::{Caller, ComponentFacts, Destination, PolicySet, Slice, Source, SourceKind};

type Failed = Box<dyn std::error::Error>;

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn main() -> Result<(), Failed> {
    println!(
        "grants  compile_ms  slices_ms  send_p50_us  send_p99_us  fresh_p50_us  fresh_p99_us  connect_p50_us  \
         denied_p50_us  jwt_p50_us  link_p50_us  call_p50_ns"
    );
    for grants in [10, 1_000, 10_000] {
        let source = [source(grants)];
        let start = Instant::now();
        let set = PolicySet::compile(&source, 1)?;
        let compile = start.elapsed();
        let start = Instant::now();
        let slices: Vec<Arc<Slice>> = (0..100).map(|n| set.slice(&facts(n))).collect();
        let cut = start.elapsed();
        let slice = slices.first().ok_or("a slice")?;
        let send = |authority: &str| {
            let destination = Destination::from_parts("https", authority);
            destination.is_ok_and(|destination| slice.http_send(&destination, "GET").is_ok())
        };
        let sends = sorted(20_000, || send("API-0.pay.example:8443"))?;
        let at = Destination::from_parts("https", "api-0.pay.example:8443")?;
        let numbers = std::cell::Cell::new(0_u32);
        let fresh = sorted(20_000, || {
            numbers.set(numbers.get() + 1);
            let destination = Destination::from_parts("https", "API-0.pay.example:8443");
            destination.is_ok_and(|destination| slice.http_send(&destination, &format!("M{}", numbers.get())).is_ok())
        })?;
        let sent = slice.http_send(&at, "GET").map_err(|denial| format!("{denial:?}"))?;
        let address = "8.8.8.8:8443".parse()?;
        let connects = sorted(20_000, || slice.http_connect(&sent, address).is_ok())?;
        let denied = sorted(5_000, || !send("API-0.pay.example:8444"))?;
        let tokens = sorted(20_000, || slice.svid_jwt("vault", 60).is_ok())?;
        let links = sorted(20_000, || slice.link("wasi:io/poll@0.2.6").is_ok())?;
        let calls = sorted(20_000, || slice.call(&Caller::Anonymous).is_ok())?;
        let us = |times: &[Duration], percent| quantile(times, percent).as_secs_f64() * 1e6;
        println!(
            "{grants:>6}  {:>10.1}  {:>9.1}  {:>11.2}  {:>11.2}  {:>12.1}  {:>12.1}  {:>14.1}  {:>13.1}  {:>10.1}  \
             {:>11.1}  {:>11}",
            compile.as_secs_f64() * 1e3,
            cut.as_secs_f64() * 1e3,
            us(&sends, 50),
            us(&sends, 99),
            us(&fresh, 50),
            us(&fresh, 99),
            us(&connects, 50),
            us(&denied, 50),
            us(&tokens, 50),
            us(&links, 50),
            quantile(&calls, 50).as_nanos(),
        );
    }
    let set = PolicySet::compile(&[source(1_000)], 1)?;
    let before = resident()?;
    let mut slices: Vec<Arc<Slice>> = (0..SLICES).map(|n| set.slice(&facts(n))).collect();
    let idle = resident()?.saturating_sub(before);
    slices.iter().for_each(|slice| drop(slice.svid_x509(60)));
    let asked = resident()?.saturating_sub(before);
    println!(
        "{} slices of 100 components, {:.1} KiB each when made, {:.1} when something was asked of it",
        slices.len(),
        idle as f64 / SLICES as f64,
        asked as f64 / SLICES as f64
    );
    slices.clear();
    let (alone, beside) = (longest_pause(false)?, longest_pause(true)?);
    println!(
        "decisions while 10,000 grants are compiled beside them: p99 {:.1} us, alone {:.1} us",
        beside.as_secs_f64() * 1e6,
        alone.as_secs_f64() * 1e6
    );
    Ok(())
}

/// The 99th percentile of a decision, with or without reloads on another thread.
fn longest_pause(reloads: bool) -> Result<Duration, Failed> {
    let slice = PolicySet::compile(&[source(10_000)], 1)?.slice(&facts(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if reloads {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    drop(PolicySet::compile(&[source(10_000)], 2));
                }
            });
        }
        let times = sorted(20_000, || {
            let destination = Destination::from_parts("https", "api-0.pay.example:8443");
            destination.is_ok_and(|destination| slice.http_send(&destination, "GET").is_ok())
        });
        done.store(true, Ordering::Release);
        Ok(quantile(&times?, 99))
    })
}

fn source(grants: usize) -> Source {
    let grant = |n: usize| {
        format!(
            "[[grant]]\nid = \"g{n}\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"demo:c{}\"\n\
             http = [\"https://api-{n}.pay.example:8443\"]\ncallers = [\"anonymous\"]\naudiences = [\"vault\"]\n",
            n % 100
        )
    };
    let text = format!("version = 1\n{}", (0..grants).map(grant).collect::<String>());
    Source { name: "grants".to_owned(), text, kind: SourceKind::Grants }
}

/// Resident memory of this process, in KiB.
fn resident() -> Result<usize, Failed> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

const SLICES: usize = 10_000;

fn facts(n: usize) -> ComponentFacts {
    ComponentFacts {
        name: format!("demo:c{}", n % 100),
        digest: "sha256:00".to_owned(),
        spiffe_id: format!("spiffe://demo.example/ns/demo/sa/c{n}"),
        signer: "signer".to_owned(),
        signer_group: "team".to_owned(),
        instance: format!("instance-{n}"),
    }
}

fn sorted(times: usize, holds: impl Fn() -> bool) -> Result<Vec<Duration>, &'static str> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        if !holds() {
            return Err("a decision did not come out as it must");
        }
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    Ok(taken)
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
