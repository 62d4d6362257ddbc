//! The binary itself. This test also has `cargo test --workspace` build it, which the tests of the whole project start.

use std::process::Command;

#[test]
fn the_binary_names_itself_and_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("portcullis ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn without_a_command_it_shows_its_help_and_ends_with_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("demo"));
}
