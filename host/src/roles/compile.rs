//! The compile process: the verified bytes of one component in, native code out, then it ends.
//!
//! It trusts nothing: it hashes the bytes again and compiles only those that the supervisor verified. It holds no key, opens
//! no file or socket, and ends by its own limits or the supervisor's deadline. Its answer is one JSON object in the third
//! descriptor of the boot packet; the code goes to the second.

use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::process::handover::Handover;
use crate::process::{Role, sandbox};
use crate::runtime::engine;

/// What one job is given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// SHA-256 of the component's bytes, `sha256:<hex>`.
    pub digest: String,
}

/// How a job ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Why there is no code; empty where there is.
    pub error: String,
    /// The engine settings that the code was made for.
    pub engine: String,
}

/// Runs one job. Descriptors of the boot packet: component bytes, native code to be, outcome.
pub fn run(handover: &Handover) -> io::Result<()> {
    let packet = handover.receive()?.ok_or_else(|| io::Error::other("no job"))?;
    let (parent, boot) = super::parse_boot::<Boot>(&packet)?;
    sandbox::enter(&sandbox::Fence { role: Role::Compile, parent, read: &[], write: &[], inspectable: false })?;
    sandbox::limit_compile_job()?;
    let [bytes, code, outcome]: [_; 3] =
        packet.fds.try_into().map_err(|_| io::Error::other("a compile job has three descriptors"))?;
    let done = match compile(File::from(bytes), File::from(code), &boot) {
        Ok(engine) => Outcome { error: String::new(), engine },
        Err(error) => Outcome { error, engine: String::new() },
    };
    serde_json::to_writer(File::from(outcome), &done)?;
    Ok(())
}

fn compile(bytes: File, mut code: File, boot: &Boot) -> Result<String, String> {
    let mut component = Vec::new();
    bytes.take(limits::COMPONENT_BYTES + 1).read_to_end(&mut component).map_err(|error| error.to_string())?;
    if portcullis_signing::Digest::of(&component).to_string() != boot.digest {
        return Err("the bytes to compile are not the bytes that were verified".to_owned());
    }
    let engine = engine::compiler().map_err(|error| format!("{error:#}"))?;
    let native = engine.precompile_component(&component).map_err(|error| format!("{error:#}"))?;
    code.write_all(&native).map_err(|error| error.to_string())?;
    Ok(engine::fingerprint(&engine))
}
