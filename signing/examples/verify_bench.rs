//! Verifies 1, 5 and 50 MiB against the SHA-256 floor of the same machine, and 100 components in parallel. Prints a table.
//!
//! `cargo run --release -p portcullis-signing --example verify_bench`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be made stops"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_signing::keyless::{Keyless, PinnedRoot, Transparency, Wanted};
use portcullis_signing::{
    Claims, ComponentBytes, Context, Delegation, Digest, KeyKind, SecretKey, SignerEntry, TrustDocument, TrustPolicy,
    sign_component, sign_trust, verify,
};
use time::OffsetDateTime;

const NOW: OffsetDateTime = time::macros::datetime!(2026-11-21 12:00 UTC);

fn main() {
    let world = World::new();
    println!("| what | size | SHA-256 | keyed | ratio | keyless | over the floor |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let keyless = Real::found();
    for mib in [1_usize, 5, 50] {
        let (bytes, bundle) = world.component(mib << 20, 1);
        let rounds = if mib > 10 { 15 } else { 60 };
        let floor = best(rounds, || {
            black_box(Digest::of(&bytes));
        });
        let keyed = best(rounds, || {
            // As a host does it: hashed while it is read into the buffer that is verified.
            let component = ComponentBytes::from_vec(black_box(bytes.clone()));
            assert!(world.verifies(&component, &bundle));
        });
        let copy = best(rounds, || drop(black_box(bytes.clone())));
        let keyed = keyed.saturating_sub(copy);
        let ratio = keyed.as_secs_f64() / floor.as_secs_f64();
        let (total, over) = keyless.as_ref().map_or(("-".to_owned(), "-".to_owned()), |real| {
            let alone = best(200, || real.verifies());
            (shown(floor + alone), shown(alone))
        });
        println!("| verify | {mib} MiB | {} | {} | {ratio:.2} | {total} | {over} |", shown(floor), shown(keyed));
    }
    parallel(&world);
    if keyless.is_none() {
        println!("\nkeyless: SKIPPED, the test data of sigstore-verify 0.15.1 is not in cargo's registry folder");
    }
}

/// A component and its bundle.
type Signed = (Vec<u8>, Vec<u8>);

/// A hundred different components of 1 MiB on all processors, against hashing the same bytes on them.
fn parallel(world: &World) {
    let all: Vec<Signed> = (0..100).map(|index| world.component(1 << 20, index)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let spread = |work: &(dyn Fn(&Signed) + Sync)| {
        best(5, || {
            std::thread::scope(|scope| {
                for part in all.chunks(all.len().div_ceil(threads)) {
                    scope.spawn(move || part.iter().for_each(work));
                }
            });
        })
    };
    let floor = spread(&|(bytes, _)| {
        black_box(Digest::of(bytes));
    });
    let copy = spread(&|(bytes, _)| drop(black_box(bytes.clone())));
    let verified = spread(&|(bytes, bundle)| {
        assert!(world.verifies(&ComponentBytes::from_vec(bytes.clone()), bundle));
    })
    .saturating_sub(copy);
    let rate = |took: Duration| 100.0 / 1024.0 / took.as_secs_f64();
    println!(
        "\n100 components of 1 MiB on {threads} threads: hashed in {} ({:.2} GiB/s), verified in {} ({:.2} GiB/s), ratio {:.2}",
        shown(floor),
        rate(floor),
        shown(verified),
        rate(verified),
        verified.as_secs_f64() / floor.as_secs_f64()
    );
}

fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    (0..rounds)
        .map(|_| {
            let from = Instant::now();
            work();
            from.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn shown(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1000.0)
}

struct World {
    signer: SecretKey,
    policy: TrustPolicy,
}

impl World {
    fn new() -> Self {
        let (root, signer) =
            (SecretKey::generate(KeyKind::Root).unwrap(), SecretKey::generate(KeyKind::Signer).unwrap());
        let day = time::Duration::days(1);
        let mut document = TrustDocument::new(1, NOW - day, NOW + day, vec![root.public()], 1).unwrap();
        let entry = SignerEntry {
            name: "ci".to_owned(),
            identity: signer.public().into(),
            group: None,
            roles: Vec::new(),
            parent: None,
            delegation: Delegation {
                names: vec!["bench:*".parse().unwrap()],
                identity_paths: vec!["ns/bench/*".parse().unwrap()],
                audiences: vec!["bench".parse().unwrap()],
                imports: Vec::new(),
                max_lifetime: "720h".parse().unwrap(),
                not_after: None,
                onward: None,
            },
        };
        document.add_signer(entry).unwrap();
        let signed = sign_trust(&document, None, &root).unwrap();
        let policy = TrustPolicy::verify(&signed, &[root.public()], 1, NOW, None).unwrap();
        Self { signer, policy }
    }

    /// A component of about so many bytes, nearly all in one section that says nothing, and its bundle.
    fn component(&self, size: usize, seed: u8) -> (Vec<u8>, Vec<u8>) {
        let mut bytes = b"\0asm\x0d\0\x01\0\0".to_vec();
        let body = size - 16;
        // A length of five bytes, as compilers leave room for.
        for shift in [0_u32, 7, 14, 21, 28] {
            let more = if shift == 28 { 0 } else { 0x80 };
            bytes.push(u8::try_from((body >> shift) & 0x7f).unwrap() | more);
        }
        bytes.extend([4, b'd', b'a', b't', b'a']);
        let mut state = u32::from(seed).wrapping_mul(2_654_435_761).wrapping_add(1);
        bytes.extend((0..body - 5).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }));
        let claims = serde_json::json!({
            "component": { "name": "bench:app", "version": "1.0.0", "revision": 1 },
            "kind": "component",
            "imports": [],
            "exports": [],
            "identity": { "path": "ns/bench/sa/app" },
            "issuedAt": "2026-11-21T00:00:00Z",
            "notBefore": "2026-11-21T00:00:00Z",
            "expiresAt": "2026-11-22T00:00:00Z",
            "audience": ["bench"],
        });
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        let component = ComponentBytes::from_vec(bytes.clone());
        let bundle = sign_component(&component, &claims, &self.signer, NOW).unwrap();
        (bytes, bundle)
    }

    fn verifies(&self, component: &ComponentBytes, bundle: &[u8]) -> bool {
        let seen = |_: &_, _: &str| Ok(None);
        let context =
            Context { trust: &self.policy, deny_list: None, audience: "bench", now: NOW, highest_seen: &seen };
        verify(component, &[bundle], &context).is_ok()
    }
}

/// A real keyless bundle, whose cost does not depend on the size of the file: the digest is there already.
struct Real {
    root: PinnedRoot,
    bundle: Vec<u8>,
    file: Digest,
    identity: String,
    issuer: String,
}

impl Real {
    fn found() -> Option<Self> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let read = |name: &str| {
            std::fs::read_dir(home.join("registry/src")).ok()?.flatten().find_map(|index| {
                std::fs::read(index.path().join("sigstore-verify-0.15.1/test_data/bundles").join(name)).ok()
            })
        };
        let bundle = read("conda-attestation.sigstore.json")?;
        let file = Digest::of(&read("signed-package-2.1.0-hb0f4dca_0.conda")?);
        let value: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&bundle).ok()?;
        let certificate = value["verificationMaterial"]["certificate"]["rawBytes"].as_str()?;
        let certificate = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, certificate).ok()?;
        let presented = portcullis_signing::keyless::present(&certificate).ok()?;
        let root = PinnedRoot::new(sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT).ok()?;
        Some(Self { root, bundle, file, identity: presented.identity, issuer: presented.issuer })
    }

    fn verifies(&self) {
        let wanted = Wanted { issuer: &self.issuer, identity: Some(&self.identity), transparency: Transparency::Log };
        self.root.verify(&self.bundle, &self.file, &wanted, OffsetDateTime::now_utc()).unwrap();
    }
}
