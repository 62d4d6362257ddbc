//! Files that were really signed by others for an older platform, through the strict reader: whoever made them is believed only
//! where the trust policy says so, and modules stay what they are. Cargo's own client brings the files; they are not committed.

use std::path::PathBuf;

use portcullis_signing::wascap::{self, TokenError};
use portcullis_tests::site::Site;
use portcullis_tests::{forge, guests, skip};
use serde_json::{Value, json};

/// Signed files in published crates.
const FILES: &[(&str, &str, &str)] = &[
    ("wascap", "0.16.2", "examples"),
    ("wascap", "0.16.2", "fixtures"),
    ("wash", "0.43.0", "tests/fixtures/hello_plugin_s.wasm"),
];

/// All `.wasm` files there.
fn found() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (name, version, path) in FILES {
        let Some(path) = guests::of_crate(name, version, path) else { continue };
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            found
                .extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "wasm")));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn tokens_of_real_files_hold_over_the_exact_bytes_and_over_no_others() {
    let mut checked = 0;
    for path in found() {
        let file = std::fs::read(&path).unwrap();
        let token = match wascap::find(&file) {
            Ok(token) => token,
            Err(TokenError::None) => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let claims = token.verify(token.issuer()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(wascap::is_subject(&claims.subject));
        // One byte of the file itself, after its header.
        for at in [8, file.len() / 3] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let verdict = wascap::find(&changed).and_then(|token| token.verify(token.issuer()));
            assert!(verdict.is_err(), "{} with byte {at} changed", path.display());
        }
        // The same token behind another body.
        let section = &file[token_at(&file)..];
        let other = [b"\0asm\x01\0\0\0".as_slice(), section].concat();
        let verdict = wascap::find(&other).and_then(|token| token.verify(token.issuer()));
        assert_eq!(verdict, Err(TokenError::Hash), "{}", path.display());
        checked += 1;
    }
    if checked == 0 {
        let why = "cargo's client cannot bring wascap 0.16.2 and wash 0.43.0";
        skip("tokens_of_real_files_hold_over_the_exact_bytes_and_over_no_others", why, true);
    }
}

/// Where the last section begins.
fn token_at(file: &[u8]) -> usize {
    let (mut at, mut last) = (8, 8);
    while at < file.len() {
        last = at;
        let (mut length, mut shift, mut next) = (0_usize, 0, at + 1);
        loop {
            let byte = file[next];
            length |= usize::from(byte & 0x7f) << shift;
            (shift, next) = (shift + 7, next + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        at = next + length;
    }
    last
}

#[test]
fn a_real_file_is_admitted_or_refused_by_what_it_is_once_its_issuer_is_opted_in() {
    let test = "a_real_file_is_admitted_or_refused_by_what_it_is_once_its_issuer_is_opted_in";
    let mut seen = 0;
    for path in found() {
        let file = std::fs::read(&path).unwrap();
        let Ok(token) = wascap::find(&file) else { continue };
        seen += 1;
        let site = Site::new();
        guests::put(site.path(), "real.wasm", &file);
        let verify = |site: &Site| {
            site.run([
                "verify",
                "real.wasm",
                "--trust",
                "opted.json",
                "--root",
                &site.public("root.key"),
                "--audience",
                "test",
                "--json",
            ])
        };
        let root = forge::key(&site.file("root.key"));
        let mut trust = forge::trust_document(&site);
        let write = |trust: &Value| {
            std::fs::write(site.file("opted.json"), forge::trust(trust, &[&root]).to_string()).unwrap();
        };
        write(&trust);
        let closed = verify(&site);
        assert_eq!((closed.exit, closed.code().as_str()), (10, "evidence.none"), "{}: {closed:?}", path.display());

        let mut signer = trust["signers"][0].clone();
        signer["name"] = json!("former");
        signer["key"] = json!(token.issuer().to_string());
        trust["signers"].as_array_mut().unwrap().push(signer);
        trust["origins"] = json!([{
            "signer": "former",
            "evidence": { "wascap": {} },
            "name": "test:former",
            "version": "1.0.0",
            "revision": 1,
            "imports": portcullis_signing::read_interfaces(&file).map(|found| found.imports).unwrap_or_default(),
            "identityPath": "ns/test/sa/former",
            "audience": ["test"],
            "expiresAt": forge::at(3600),
        }]);
        write(&trust);
        let opened = verify(&site);
        if portcullis_signing::read_interfaces(&file).is_ok() {
            // Its imports may be beyond the signer's: whatever is said, it is said about verified claims.
            assert!(opened.exit == 0 || opened.code() == "signer.imports", "{}: {opened:?}", path.display());
        } else {
            assert_eq!((opened.exit, opened.code().as_str()), (13, "claims.not-component"), "{}", path.display());
            let details = opened.json()["error"]["details"].clone();
            assert_eq!(details["claims"]["name"], "test:former", "{details}");
            assert_eq!(details["signer"]["name"], "former", "{details}");
        }
    }
    if seen == 0 {
        skip(test, "cargo's client cannot bring wascap 0.16.2 and wash 0.43.0", true);
    }
}
