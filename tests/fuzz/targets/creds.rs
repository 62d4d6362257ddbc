//! Reads a credentials file. What is read is written again as what is read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::nats_jwt::Creds;

fuzz_target!(|bytes: &[u8]| {
    let Ok(creds) = Creds::parse(bytes) else { return };
    assert_eq!(creds.user(), creds.key().public());
    let text = creds.to_text();
    let Ok(again) = Creds::parse(text.as_bytes()) else { unreachable!("it was written just now") };
    assert_eq!((again.jwt(), again.user(), again.account()), (creds.jwt(), creds.user(), creds.account()));
    assert!(Creds::parse(format!("{0}{0}", *text).as_bytes()).is_err(), "two in one file");
});
