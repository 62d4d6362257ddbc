//! The files of one audit log: the one that is written, and those that were written before it.
//!
//! Parts are named after the number of their last record, so their names sort by age. Whatever else lies in the folder is not
//! part of the log.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record;

/// When a log goes on in a new file, and how many old ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// A file that has so many bytes is the last one of its part.
    pub bytes: u64,
    /// Old parts that stay; 0: all.
    pub keep: usize,
}

impl Default for Parts {
    fn default() -> Self {
        Self { bytes: 64 << 20, keep: 0 }
    }
}

impl Parts {
    /// The end of the newest old part, where there is one.
    pub(super) fn last(self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let Some(newest) = old(path)?.pop() else { return Ok(None) };
        let file = File::open(newest)?;
        let length = file.metadata()?.len();
        tail(&file, length).map(Some)
    }

    /// Old parts beyond those that stay, the oldest first.
    pub(super) fn surplus(self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut old = old(path)?;
        let stay = if self.keep == 0 { old.len() } else { self.keep };
        old.truncate(old.len().saturating_sub(stay));
        Ok(old)
    }
}

/// Every file of the log at `path`, the oldest first, the one that is written last.
pub fn all(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = old(path)?;
    all.push(path.to_path_buf());
    Ok(all)
}

/// Opens the file that is written, or makes it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 || meta.uid() != rustix::process::getuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not an owner-only file of this user"));
    }
    Ok(file)
}

/// What a part is called whose last record has this number.
pub(super) fn name(path: &Path, last: u64) -> PathBuf {
    path.with_file_name(format!("{}{last:0width$}{END}", stem(path), width = DIGITS))
}

/// Names in the folder are on the disk when this returns.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The end of a file: at least one whole line where there is one.
pub(super) fn tail(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(u64::try_from(record::RECORD_BYTES * 2).unwrap_or(0));
    let mut tail = vec![0; usize::try_from(length - start).map_err(io::Error::other)?];
    file.read_exact_at(&mut tail, start)?;
    Ok(tail)
}

fn old(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (folder, stem) = (path.parent().unwrap_or(Path::new(".")), stem(path));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&stem)?.strip_suffix(END));
        if number.is_some_and(|number| number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{}-", name.strip_suffix(END).unwrap_or(&name))
}

const END: &str = ".jsonl";
const DIGITS: usize = 20;
