use super::*;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn names(list: &[ImportName]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

const SAMPLE: &str = r#"(component
    (import "wasi:http/types@0.2.3" (instance))
    (import "log" (func))
    (import "a:b/c" (instance))
    (core module (func (export "f")))
    (component (import "hidden:inside/nested" (instance)) (component (import "x:y/z" (instance))))
    (instance $i (export "run" (func 0)))
    (export "wasi:cli/run@0.2.0" (instance $i))
)"#;

#[test]
fn imports_and_exports_of_the_top_level_are_listed_sorted() {
    let found = read_interfaces(&wat(SAMPLE)).unwrap();
    assert_eq!(names(&found.imports), ["a:b/c", "log", "wasi:http/types@0.2.3"]);
    assert_eq!(names(&found.exports), ["wasi:cli/run@0.2.0"]);
}

#[test]
fn what_is_not_a_component_is_told_apart() {
    let component = wat("(component)");
    let mut flipped = component.clone();
    flipped[4] ^= 0x40;
    for (bytes, expected) in [
        (Vec::new(), ComponentError::Empty),
        (b"hello, this is text".to_vec(), ComponentError::NotWasm),
        (b" (component)".to_vec(), ComponentError::Text),
        (b"\x7fELF\x02\x01\x01rest".to_vec(), ComponentError::Native),
        (wat("(module)"), ComponentError::CoreModule),
        (component[..3].to_vec(), ComponentError::Truncated(3)),
        (component[..7].to_vec(), ComponentError::Truncated(7)),
    ] {
        assert_eq!(read_interfaces(&bytes), Err(expected));
    }
    assert!(matches!(read_interfaces(&flipped), Err(ComponentError::Malformed(_))));
}

#[test]
fn every_truncation_is_an_error_or_a_shorter_component() {
    let whole = wat(SAMPLE);
    let all = read_interfaces(&whole).unwrap();
    let mut truncated = 0;
    for length in 0..whole.len() {
        match read_interfaces(&whole[..length]) {
            Ok(found) => assert!(found.imports.iter().all(|name| all.imports.contains(name))),
            Err(ComponentError::Truncated(at)) => {
                assert_eq!(at, length);
                truncated += 1;
            }
            Err(_) => {}
        }
    }
    assert!(truncated > whole.len() / 2, "{truncated} of {}", whole.len());
}

#[test]
fn no_changed_byte_panics() {
    let whole = wat(SAMPLE);
    for position in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[position] ^= 1 << bit;
            let _ = read_interfaces(&changed);
        }
    }
}

#[test]
fn names_that_fetch_code_are_refused() {
    for import in [
        "unlocked-dep=<a:b>",
        "locked-dep=<a:b@1.0.0>",
        "url=<https://x.example>",
        "integrity=<sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=>",
    ] {
        let bytes = wat(&format!(r#"(component (import "{import}" (component)))"#));
        assert!(matches!(read_interfaces(&bytes), Err(ComponentError::Name { side: "import", .. })), "{import}");
    }
}

#[test]
fn too_many_imports_are_refused() {
    let imports = |count: usize| {
        let list: String = (0..count).map(|i| format!(r#"(import "a:b/c{i}" (instance))"#)).collect();
        read_interfaces(&wat(&format!("(component {list})")))
    };
    assert_eq!(imports(INTERFACES).unwrap().imports.len(), INTERFACES);
    assert_eq!(imports(INTERFACES + 1), Err(ComponentError::TooMany { what: "imports", max: INTERFACES as u64 }));
}

#[test]
fn a_name_beyond_the_limit_is_refused() {
    let import = |length: usize| {
        let name = format!("a:b/{}", "c".repeat(length - 4));
        read_interfaces(&wat(&format!(r#"(component (import "{name}" (instance)))"#)))
    };
    assert!(import(NAME_BYTES).is_ok());
    assert!(matches!(import(NAME_BYTES + 1), Err(ComponentError::Name { .. })));
}

#[test]
fn components_nested_too_deeply_are_refused() {
    let nested = |depth: usize| wat(&format!("{}{}", "(component ".repeat(depth), ")".repeat(depth)));
    assert!(read_interfaces(&nested(COMPONENT_DEPTH)).is_ok());
    assert!(matches!(
        read_interfaces(&nested(COMPONENT_DEPTH + 1)),
        Err(ComponentError::TooMany { what: "levels of nested components", .. })
    ));
}

#[test]
fn too_many_sections_are_refused() {
    let mut bytes = wat("(component)");
    for _ in 0..SECTIONS {
        bytes.extend_from_slice(&[0, 2, 1, b'x']);
    }
    assert_eq!(read_interfaces(&bytes), Err(ComponentError::TooMany { what: "sections", max: SECTIONS as u64 }));
}

#[test]
fn a_file_beyond_the_limit_is_refused() {
    let mut bytes = wat("(component)");
    bytes.resize(COMPONENT_BYTES as usize + 1, 0);
    assert_eq!(read_interfaces(&bytes), Err(ComponentError::TooMany { what: "bytes", max: COMPONENT_BYTES }));
}

#[test]
fn an_unknown_section_is_refused() {
    let mut bytes = wat("(component)");
    bytes.extend_from_slice(&[0x7e, 1, 0]);
    assert!(matches!(read_interfaces(&bytes), Err(ComponentError::Malformed(_))));
}
