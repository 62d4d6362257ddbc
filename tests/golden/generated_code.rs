//! The checked-in gRPC code is what the `.proto` files give: this test generates it again and compares.
//!
//! After a change to a `.proto` file: `UPDATE_GENERATED=1 cargo test -p portcullis-tests --test generated_code`.

use std::path::{Path, PathBuf};

const PARTS: &[(&str, &[&str])] = &[
    ("identity", &["portcullis/identity/v1/identity.proto"]),
    (
        "identity",
        &[
            "google/rpc/error_details.proto",
            "google/rpc/status.proto",
            "portcullis/broker/v1/component_reference.proto",
            "spiffe/broker/api.proto",
            "spire/api/agent/delegatedidentity/v1/delegatedidentity.proto",
        ],
    ),
    ("identity", &["spiffe/workload.proto"]),
    ("identity", &["portcullis/nats/v1/nats.proto"]),
    ("identity", &["portcullis/own/v1/own.proto"]),
    (
        "host",
        &[
            "portcullis/audit/v1/audit.proto",
            "portcullis/control/v1/control.proto",
            "portcullis/runtime/v1/runtime.proto",
        ],
    ),
];

/// What gRPC reflection tells: compiled `.proto` files, checked in as `src/generated/NAME`.
const DESCRIPTORS: &[(&str, &str, &str)] =
    &[("identity", "spiffe/workload.proto", "workload.bin"), ("identity", "spiffe/broker/api.proto", "broker.bin")];

#[test]
fn checked_in_descriptors_are_what_the_protos_give() {
    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    for (part, proto, name) in DESCRIPTORS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part);
        let mut files = protox::compile([proto], [root.join("proto")]).expect("the .proto files compile");
        for file in &mut files.file {
            file.source_code_info = None;
        }
        let bytes = prost::Message::encode_to_vec(&files);
        let target = root.join("src/generated").join(name);
        if update {
            std::fs::write(&target, &bytes).unwrap();
        }
        let same = std::fs::read(&target).is_ok_and(|committed| committed == bytes);
        assert!(same, "{} is not what {proto} gives: run this test with UPDATE_GENERATED=1", target.display());
    }
}

#[test]
fn checked_in_grpc_code_is_what_the_protos_give() {
    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    for (part, protos) in PARTS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part);
        let fresh = tempfile::tempdir().unwrap();
        generate(&root.join("proto"), protos, fresh.path());
        for entry in std::fs::read_dir(fresh.path()).unwrap() {
            let entry = entry.unwrap();
            let target: PathBuf = root.join("src/generated").join(entry.file_name());
            let text = std::fs::read_to_string(entry.path()).unwrap();
            if update {
                std::fs::create_dir_all(target.parent().unwrap()).unwrap();
                std::fs::write(&target, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&target).unwrap_or_default();
            assert!(
                committed == text,
                "{} is not what the .proto files give: run this test with UPDATE_GENERATED=1",
                target.display()
            );
        }
    }
}

fn generate(include: &Path, protos: &[&str], out: &Path) {
    let files = protox::compile(protos, [include]).expect("the .proto files compile");
    // Messages that carry a bearer token get their `Debug` by hand, without the token: see identity/src/rpc.rs.
    let by_hand = [
        ".JWTSVID",
        ".ValidateJWTSVIDRequest",
        ".WITSVID",
        ".X509SVID",
        ".portcullis.identity.v1.ExportedX509",
        ".portcullis.identity.v1.JwtSvid",
        ".portcullis.identity.v1.ValidateJwtSvidRequest",
        ".spiffe.broker.JWTSVID",
        ".spiffe.broker.X509SVID",
        ".spire.api.agent.delegatedidentity.v1.X509SVIDWithKey",
        ".spire.api.types.JWTSVID",
        ".portcullis.nats.v1.Credential",
    ];
    let config = tonic_prost_build::configure().build_transport(false).skip_debug(by_hand).out_dir(out);
    config.compile_fds(files).expect("code is generated");
}
