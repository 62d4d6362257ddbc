//! Reads the `Location` header of a bundle endpoint. Wherever it leads is an https URL that reads back as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::federation::BundleUrl;

fuzz_target!(|text: &str| {
    let Ok(from) = "https://bundles.example.org:8443/bundle.json".parse::<BundleUrl>() else {
        unreachable!("it is a bundle URL");
    };
    let Ok(to) = from.redirected(text) else { return };
    let shown = to.to_string();
    // User information is none of a URL's; in a path the sign is a letter like others.
    assert!(shown.starts_with("https://") && !to.authority().contains('@') && !shown.contains(['#', '\r', '\n', ' ']));
    assert_eq!(shown.parse::<BundleUrl>(), Ok(to));
});
