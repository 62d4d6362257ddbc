//! The form of every file of the key directory: one line of JSON and a line with its SHA-256, so that a half-written or damaged
//! file is told from a whole one before its content means anything. The sum is no protection against an owner who forges it.

use ring::digest::{SHA256, digest};

use crate::hex::hex;

/// Bytes that [`seal`] adds.
pub(crate) const SEAL_BYTES: usize = 66;

/// Ends the line and adds its sum.
pub(crate) fn seal(line: &mut Vec<u8>) {
    let sum = hex(digest(&SHA256, line).as_ref());
    line.push(b'\n');
    line.extend_from_slice(sum.as_bytes());
    line.push(b'\n');
}

/// The line of a whole file; the error says what is wrong with it.
pub(crate) fn unseal(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let body = bytes.strip_suffix(b"\n").ok_or("it is empty or cut off")?;
    let at = body.iter().rposition(|b| *b == b'\n').ok_or("it is cut off")?;
    let (line, sum) = body.split_at_checked(at).ok_or("it is cut off")?;
    let sum = sum.strip_prefix(b"\n").ok_or("it is cut off")?;
    if hex(digest(&SHA256, line).as_ref()).as_bytes() == sum { Ok(line) } else { Err("its checksum does not match") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let mut file = br#"{"a":1}"#.to_vec();
        let before = file.len();
        seal(&mut file);
        assert_eq!(file.len(), before + SEAL_BYTES);
        assert_eq!(unseal(&file), Ok(&br#"{"a":1}"#[..]));
        for at in 0..file.len() {
            assert!(unseal(&file[..at]).is_err(), "cut at {at}");
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(unseal(&changed).is_err(), "changed at {at}");
        }
    }
}
