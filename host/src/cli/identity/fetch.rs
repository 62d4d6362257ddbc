//! `portcullis identity fetch`: the X.509-SVID of whoever runs it, from a SPIFFE Workload API (a host's or an agent's), as files for
//! commands and programs that read PEM. It decides nothing: the API says who this process is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::SpiffeId;
use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_identity::workload_api::pb::{X509svid, X509svidRequest};
use tonic::metadata::MetadataValue;
use zeroize::Zeroizing;

use crate::cli::error::{CliError, exit};
use crate::cli::output::Output;
use crate::cli::{block_on, files, pem};
use crate::config::environment;

/// Arguments of `identity fetch`.
#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    /// The socket of the Workload API, a path or unix:///PATH. Without it: SPIFFE_ENDPOINT_SOCKET.
    #[arg(long, value_name = "SOCKET")]
    workload_api: Option<String>,
    /// Which identity, where this process has several. Without it: its default one.
    #[arg(long, value_name = "SPIFFE-ID")]
    id: Option<SpiffeId>,
    /// The folder to write svid.pem, svid_key.pem (mode 0600) and svid_bundle.pem to. What is there is replaced.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out_dir: PathBuf,
}

/// Runs the command.
pub fn run(args: &FetchArgs, out: &mut Output) -> Result<(), CliError> {
    let socket = args.workload_api.clone().or_else(|| environment::read(ENDPOINT)).ok_or_else(|| {
        CliError::usage(format!("no Workload API is named, and {ENDPOINT} is not set"))
            .with_hint("name it: --workload-api /run/portcullis/workload.sock")
    })?;
    let socket = path(&socket)?;
    let mut svids = block_on(async {
        let asked = tokio::time::timeout(WAIT, ask(&socket)).await;
        asked.map_err(|_| unreachable(&socket, "it did not answer in time"))?
    })?;
    let wanted = |svid: &X509svid| args.id.as_ref().is_none_or(|id| svid.spiffe_id == id.to_string());
    let Some(mut svid) = svids.iter().position(wanted).map(|at| svids.swap_remove(at)) else {
        let has: Vec<&str> = svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
        return Err(CliError::usage(format!("this process has no such identity; it has {}", has.join(", ")))
            .with_hint("name one of these with --id, or leave it away"));
    };
    let key = Zeroizing::new(std::mem::take(&mut svid.x509_svid_key));
    let answer = |what: &str| CliError::new(exit::TRANSPORT, "workload-api.answer", format!("{what} makes no sense"));
    let chain = pem::certificates(&svid.x509_svid).filter(|text| !text.is_empty()).ok_or_else(|| answer("its SVID"))?;
    let bundle = pem::certificates(&svid.bundle).ok_or_else(|| answer("its bundle"))?;
    if key.is_empty() {
        return Err(answer("its key"));
    }
    std::fs::create_dir_all(&args.out_dir).map_err(|error| {
        CliError::usage(format!("{} cannot be made: {error}", args.out_dir.display())).with_hint("name another folder")
    })?;
    // The key first: whoever reads between the two finds a pair that does not fit and says so, never an open key.
    let file = |name: &str| args.out_dir.join(name);
    files::write(&file("svid_key.pem"), pem::block("PRIVATE KEY", &key).as_bytes(), 0o600, true)?;
    files::write(&file("svid.pem"), chain.as_bytes(), 0o644, true)?;
    files::write(&file("svid_bundle.pem"), bundle.as_bytes(), 0o644, true)?;
    let written = ["svid.pem", "svid_key.pem", "svid_bundle.pem"].map(file);
    let json = serde_json::json!({ "spiffeId": svid.spiffe_id, "files": written });
    out.result(format!("{}  {}", svid.spiffe_id, file("svid.pem").display()), &json)
}

async fn ask(socket: &Path) -> Result<Vec<X509svid>, CliError> {
    let channel = crate::rpc::client_at(socket).await.map_err(|error| unreachable(socket, &error.to_string()))?;
    let mut request = tonic::Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let refused = |status: tonic::Status| match status.code() {
        tonic::Code::PermissionDenied => CliError::new(exit::DENIED, "workload-api.denied", status.message())
            .with_hint("no entry fits this process: the audit log of the host says how it saw it (workload.no-entry)"),
        _ => unreachable(socket, status.message()),
    };
    let mut stream = client.fetch_x509svid(request).await.map_err(refused)?.into_inner();
    let first = stream.message().await.map_err(refused)?;
    first.map(|response| response.svids).ok_or_else(|| unreachable(socket, "it ended the call"))
}

/// The path of a socket; `unix:` URLs have no other part (SPIFFE Workload Endpoint section 4).
fn path(text: &str) -> Result<PathBuf, CliError> {
    let path = match text.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => text,
    };
    if text.starts_with("tcp:") || path.is_empty() || (text.starts_with("unix:") && !path.starts_with('/')) {
        return Err(CliError::usage(format!("`{text}` is no Unix socket")).with_hint("/PATH or unix:///PATH"));
    }
    Ok(PathBuf::from(path))
}

fn unreachable(socket: &Path, why: &str) -> CliError {
    let message = format!("the Workload API at {} does not answer: {why}", socket.display());
    CliError::new(exit::TRANSPORT, "workload-api.unreachable", message)
        .with_hint("see that it runs, and that this user may open its socket ([workload_api] mode and group)")
}

const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";
/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_a_unix_url() {
        for good in ["/run/w.sock", "unix:///run/w.sock", "unix:/run/w.sock"] {
            assert_eq!(path(good).unwrap(), Path::new("/run/w.sock"), "{good}");
        }
        assert_eq!(path("w.sock").unwrap(), Path::new("w.sock"));
        for bad in ["", "unix:", "unix://", "unix://w.sock", "unix:w.sock", "tcp://127.0.0.1:1"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
