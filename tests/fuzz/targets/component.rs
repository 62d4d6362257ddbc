//! Reads the interfaces of a component. What is read must be sorted, without repetition, and within the limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::read_interfaces;

fuzz_target!(|bytes: &[u8]| {
    let Ok(interfaces) = read_interfaces(bytes) else { return };
    for names in [&interfaces.imports, &interfaces.exports] {
        let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert!(shown.is_sorted(), "names are not sorted: {shown:?}");
        assert_eq!(
            Ok(names),
            shown.iter().map(|name| name.parse()).collect::<Result<_, _>>().as_ref(),
            "a name is read otherwise"
        );
    }
});
