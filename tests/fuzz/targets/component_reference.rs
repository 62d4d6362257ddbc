//! Reads a reference to a component as a broker sends it: of the right type and of whatever bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::SpiffeId;
use portcullis_identity::broker::{BrokerRefusal, COMPONENT_REFERENCE, packed, read_reference};

fuzz_target!(|bytes: &[u8]| {
    let Ok(host) = "spiffe://example.org/portcullis/host".parse::<SpiffeId>() else { unreachable!("it is an ID") };
    match read_reference(packed(COMPONENT_REFERENCE, bytes.to_vec()), &host) {
        Ok(named) => {
            assert!(!named.instance.as_str().is_empty());
            // An empty field asks for nothing; no field is ever matched by being cut.
            assert!(named.digest.as_deref() != Some("") && named.component.as_deref() != Some(""));
        }
        Err(BrokerRefusal::Reference(_) | BrokerRefusal::NotFound) => {}
        Err(other) => unreachable!("a reference is refused as {other}"),
    }
});
