//! Files that a user hands over: read with a cap, every failure with the path, the reason and a hint. Written whole or not at all.

use std::fs::File;
use std::io::{self, Read, Write};
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use portcullis_signing::ComponentBytes;
use portcullis_signing::limits::EVIDENCE_COUNT;

use super::error::{CliError, exit};
use crate::limits;

/// Reads a regular file of 1 to `most` bytes. `what` names it in messages, for instance "claims file".
pub fn read_bytes(path: &Path, most: u64, what: &str) -> Result<Vec<u8>, CliError> {
    let (file, size) = open(path, most, what)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default().min(1 << 20));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(path, what, &error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(too_large(path, most, what));
    }
    if bytes.is_empty() {
        return Err(empty(path, what));
    }
    Ok(bytes)
}

/// Reads a regular file as UTF-8.
pub fn read_text(path: &Path, most: u64, what: &str) -> Result<String, CliError> {
    String::from_utf8(read_bytes(path, most, what)?).map_err(|error| {
        let message = format!(
            "{what} {} is not UTF-8: the first bad byte is at offset {}",
            path.display(),
            error.utf8_error().valid_up_to()
        );
        CliError::usage(message).with_hint(format!("a {what} is a text file; was a binary file named instead?"))
    })
}

/// Opens a regular file of any size that is not empty, to be read in pieces.
pub fn open_to_read(path: &Path, what: &str) -> Result<File, CliError> {
    open(path, u64::MAX, what).map(|(file, _)| file)
}

/// Reads a component, hashing while reading.
pub fn read_component(path: &Path) -> Result<ComponentBytes, CliError> {
    let (file, _) = open(path, limits::COMPONENT_BYTES, "component")?;
    ComponentBytes::read(file, limits::COMPONENT_BYTES).map_err(|error| {
        CliError::new(exit::CLAIMS, "component.unreadable", format!("component {}: {error}", path.display()))
    })
}

/// Reads the evidence of a component: the files named, else those beside it that are there.
pub fn read_evidence(component: &Path, named: &[PathBuf]) -> Result<Vec<Vec<u8>>, CliError> {
    let beside = if named.is_empty() { all_evidence_beside(component) } else { Vec::new() };
    let paths = if named.is_empty() { &beside } else { named };
    paths.iter().map(|path| read_bytes(path, limits::ATTACHMENT_BYTES, "evidence")).collect()
}

/// The evidence files beside a component that are there: `PATH.sigstore.json`, `PATH.provenance.sigstore.json`, those of further
/// signers and statements, `PATH.2.sigstore.json` and on without a gap, and SBOMs, `PATH.sbom.json` and on likewise.
pub fn all_evidence_beside(component: &Path) -> Vec<PathBuf> {
    let numbered = |name: fn(&Path, usize) -> PathBuf| {
        (0..=EVIDENCE_COUNT).map(move |number| name(component, number)).take_while(|path| !is_missing(path))
    };
    let provenance = Some(provenance_beside(component)).filter(|path| !is_missing(path));
    let mut found: Vec<PathBuf> = numbered(evidence_number).collect();
    found.splice(found.len().min(1)..found.len().min(1), provenance);
    found.extend(numbered(sbom_number));
    found
}

/// The evidence file with this number beside a component, from 0.
pub fn evidence_number(component: &Path, number: usize) -> PathBuf {
    beside(component, number, "sigstore.json")
}

/// The SBOM with this number beside a component, from 0.
pub fn sbom_number(component: &Path, number: usize) -> PathBuf {
    beside(component, number, "sbom.json")
}

/// Whether a file beside a component is named as an SBOM.
pub fn is_sbom(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b".sbom.json")
}

/// Where the provenance of a component lies.
pub fn provenance_beside(component: &Path) -> PathBuf {
    beside(component, 0, "provenance.sigstore.json")
}

/// The first evidence file beside a component that is not there yet.
pub fn free_evidence(component: &Path) -> PathBuf {
    let mut number = 0;
    while !is_missing(&evidence_number(component, number)) && number <= EVIDENCE_COUNT {
        number += 1;
    }
    evidence_number(component, number)
}

fn beside(component: &Path, number: usize, ending: &str) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{}", number.saturating_add(1)));
    }
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}

/// Whether there is nothing of this name. What cannot be looked at is there: reading it will say why it cannot be read.
fn is_missing(path: &Path) -> bool {
    matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A component and the evidence that was named for it, for a message about the two.
pub fn with_evidence(component: &Path, named: &[PathBuf]) -> String {
    let evidence: Vec<String> = named.iter().map(|path| path.display().to_string()).collect();
    let with = if evidence.is_empty() { "" } else { " with " };
    format!("{}{with}{}", component.display(), evidence.join(", "))
}

/// Where the evidence of a component lies by default: `PATH.sigstore.json`.
pub fn evidence_beside(component: &Path) -> PathBuf {
    evidence_number(component, 0)
}

/// Writes a file whole or not at all: temporary file, fsync, rename, fsync of the folder.
pub fn write(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<(), CliError> {
    let failed = |error: &io::Error| {
        CliError::usage(format!("{} cannot be written: {error}", path.display()))
            .with_hint("check that the folder exists and that you may write there")
    };
    if path.is_dir() {
        return Err(CliError::usage(format!("{} is a folder", path.display())).with_hint("name a file in it"));
    }
    if !force && std::fs::symlink_metadata(path).is_ok() {
        return Err(CliError::usage(format!("{} exists already", path.display()))
            .with_hint("name another file, or give --force to replace it"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".portcullis-");
        #[cfg(unix)]
        builder.permissions(PermissionsExt::from_mode(mode));
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        if force {
            file.persist(path).map_err(|error| error.error)?;
        } else {
            file.persist_noclobber(path).map_err(|error| error.error)?;
        }
        sync_folder(folder)
    };
    write().map_err(|error| failed(&error))
}

/// What was renamed stays renamed. Elsewhere than on Unix a folder cannot be opened for that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Replaces a file by new content with the owner, group and mode of the old one, or not at all.
#[cfg(feature = "host")]
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::os::unix::fs::MetadataExt;
    let old = std::fs::metadata(path).map_err(|error| unreadable(path, "file", &error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let replace = || -> io::Result<()> {
        let mode = PermissionsExt::from_mode(old.mode() & 0o7777);
        let mut file = tempfile::Builder::new().prefix(".portcullis-").permissions(mode).tempfile_in(folder)?;
        std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    replace().map_err(|error| {
        CliError::usage(format!("{} cannot be written: {error}", path.display()))
            .with_hint("run as the user who owns it, so that its owner and mode can stay")
    })
}

fn open(path: &Path, most: u64, what: &str) -> Result<(File, u64), CliError> {
    let mut options = File::options();
    options.read(true);
    // A pipe must not hold us up.
    #[cfg(unix)]
    options.custom_flags(libc::O_NONBLOCK);
    let opened = options.open(path);
    let file = opened.map_err(|error| unreadable(path, what, &error))?;
    let meta = file.metadata().map_err(|error| unreadable(path, what, &error))?;
    if meta.is_dir() {
        let message = format!("{what} {} is a folder", path.display());
        return Err(CliError::usage(message).with_hint("name the file in it"));
    }
    if !meta.is_file() {
        let kind = special(meta.file_type());
        let message = format!("{what} {} is {kind}, not a file", path.display());
        return Err(CliError::usage(message).with_hint("write its content to a file first"));
    }
    if meta.len() > most {
        return Err(too_large(path, most, what));
    }
    if meta.len() == 0 {
        return Err(empty(path, what));
    }
    Ok((file, meta.len()))
}

#[cfg(unix)]
fn special(kind: std::fs::FileType) -> &'static str {
    if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn special(_kind: std::fs::FileType) -> &'static str {
    "something else"
}

fn unreadable(path: &Path, what: &str, error: &io::Error) -> CliError {
    let (why, hint) = match error.kind() {
        io::ErrorKind::NotFound => ("does not exist".to_owned(), "check the path"),
        io::ErrorKind::PermissionDenied => {
            ("may not be read by this user".to_owned(), "change its owner or mode, or run as the user who may read it")
        }
        _ => (format!("cannot be read: {error}"), "check the file and the disk"),
    };
    CliError::usage(format!("{what} {} {why}", path.display())).with_hint(hint)
}

fn too_large(path: &Path, most: u64, what: &str) -> CliError {
    let message = format!("{what} {} is larger than {most} bytes", path.display());
    CliError::usage(message).with_hint("was another file named by mistake?")
}

fn empty(path: &Path, what: &str) -> CliError {
    let message = format!("{what} {} is empty", path.display());
    CliError::usage(message).with_hint("was it written to the end? make it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> CliError {
        read_text(path, 16, "claims file").unwrap_err()
    }

    #[test]
    fn every_kind_of_bad_file_is_named_with_a_reason_and_a_hint() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("empty"), b"").unwrap();
        std::fs::write(at("large"), [b'x'; 17]).unwrap();
        std::fs::write(at("binary"), b"ab\xff").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        for (name, reason) in [
            ("missing", "does not exist"),
            (".", "folder"),
            ("empty", "empty"),
            ("large", "larger than 16"),
            ("binary", "offset 2"),
            ("pipe", "pipe"),
        ] {
            let error = refused(&at(name));
            assert!(error.message().contains(reason), "{name}: {}", error.message());
            assert!(error.message().contains(&temp.path().display().to_string()) && error.hint().is_some());
            assert_eq!(error.exit(), exit::USAGE);
        }
        std::fs::write(at("fits"), [b'x'; 16]).unwrap();
        assert_eq!(read_text(&at("fits"), 16, "claims file").unwrap().len(), 16);
    }

    #[test]
    fn a_file_is_written_whole_and_not_over_another_without_force() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("out");
        write(&path, b"1", 0o600, false).unwrap();
        assert!(write(&path, b"2", 0o600, false).unwrap_err().hint().unwrap().contains("--force"));
        write(&path, b"3", 0o600, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"3");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        assert!(write(temp.path(), b"4", 0o600, true).is_err());
        assert!(write(&temp.path().join("no/such"), b"4", 0o600, true).is_err());
    }
}
