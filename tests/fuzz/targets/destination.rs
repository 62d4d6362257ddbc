//! Canonicalises a destination: scheme, a line feed, authority. The canonical form must be a fixed point, in each of the
//! ways in which it is written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_policies::Destination;

fuzz_target!(|text: &str| {
    let _ = Destination::parse_url(text);
    let Some((scheme, authority)) = text.split_once('\n') else { return };
    let Ok(destination) = Destination::from_parts(scheme, authority) else { return };
    assert_eq!(Ok(&destination), Destination::parse_url(&destination.to_string()).as_ref());
    assert_eq!(
        Ok(&destination),
        Destination::from_parts(destination.scheme().as_str(), &destination.authority()).as_ref()
    );
    assert_ne!(destination.port(), 0);
    assert!(destination.to_string().is_ascii());
});
