use super::*;
use std::path::PathBuf;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn log(records: usize) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    let mut log = AuditLog::open(&path, NOW).unwrap();
    for n in 0..records {
        let record = Record::new("admission").field("n", n).field("text", "a \"quoted\"\n\u{1b}[0m text");
        log.append(NOW, record, Durability::Buffered).unwrap();
    }
    (temp, path)
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn check(lines: &[String]) -> Result<Summary, ChainError> {
    verify(lines.join("\n").as_bytes())
}

#[test]
fn a_whole_chain_holds_and_is_counted() {
    let (_temp, path) = log(3);
    let summary = check(&lines(&path)).unwrap();
    assert_eq!(summary.records, 4);
    assert_eq!(summary.by_kind.get("admission"), Some(&3));
}

#[test]
fn a_log_goes_on_where_it_was_left() {
    let (_temp, path) = log(1);
    let mut again = AuditLog::open(&path, NOW).unwrap();
    assert_eq!(again.append(NOW, Record::new("stop"), Durability::Durable).unwrap().seq, 2);
    assert_eq!(check(&lines(&path)).unwrap().records, 3);
}

#[test]
fn every_changed_byte_is_found_at_its_line() {
    let (_temp, path) = log(2);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() - 1 {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(verify(changed.as_slice()).is_err(), "byte {at} was changed and not found");
    }
}

#[test]
fn removed_swapped_and_doubled_lines_are_found() {
    let (_temp, path) = log(4);
    let whole = lines(&path);
    let mut removed = whole.clone();
    removed.remove(2);
    assert_eq!(check(&removed).unwrap_err().line, 3);
    let mut swapped = whole.clone();
    swapped.swap(2, 3);
    assert_eq!(check(&swapped).unwrap_err().line, 3);
    let mut doubled = whole.clone();
    doubled.insert(2, whole[1].clone());
    assert_eq!(check(&doubled).unwrap_err().line, 3);
    assert_eq!(check(&whole[1..]).unwrap_err().line, 1);
    assert!(verify(&b""[..]).is_err());
}

#[test]
fn a_line_torn_by_a_crash_is_moved_aside_and_recorded() {
    let (temp, path) = log(2);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    drop(AuditLog::open(&path, NOW).unwrap());
    let summary = check(&lines(&path)).unwrap();
    assert_eq!(summary.by_kind.get("torn"), Some(&1));
    let torn = std::fs::read(temp.path().join("audit.jsonl.torn")).unwrap();
    assert!(!torn.is_empty() && whole.windows(torn.len() - 1).any(|part| part == &torn[..torn.len() - 1]));
}

#[test]
fn a_log_whose_last_line_was_changed_is_not_continued() {
    let (_temp, path) = log(1);
    let text = std::fs::read_to_string(&path).unwrap().replace("admission", "admissioN");
    std::fs::write(&path, text).unwrap();
    assert_eq!(AuditLog::open(&path, NOW).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_log_that_others_can_read_or_a_link_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (temp, path) = log(1);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(AuditLog::open(&path, NOW).is_err());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(AuditLog::open(&link, NOW).is_err());
}

#[test]
fn a_record_over_the_limit_is_cut_and_the_chain_holds() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    let mut log = AuditLog::open(&path, NOW).unwrap();
    let large = Record::new("denial").field("text", "x".repeat(1 << 20)).field("hash", "mine");
    log.append(NOW, large, Durability::Buffered).unwrap();
    let many = (0..10_000).fold(Record::new("denial"), |record, n| record.field(&format!("f{n}"), "x"));
    log.append(NOW, many, Durability::Buffered).unwrap();
    let lines = lines(&path);
    assert!(lines.iter().all(|line| line.len() <= record::RECORD_BYTES + 100));
    assert!(lines[1].contains("\"hash_\":\"mine\"") && lines[2].contains("fields_left_out"));
    assert_eq!(check(&lines).unwrap().records, 3);
}

#[test]
fn a_record_is_found_by_its_reference() {
    let (_temp, path) = log(0);
    let mut log = AuditLog::open(&path, NOW).unwrap();
    let reference = ulid::Ulid::generate().to_string();
    log.append(NOW, Record::new("denial").reference(&reference).field("text", "why"), Durability::Buffered).unwrap();
    assert_eq!(find(&path, &reference).unwrap().unwrap().get("text").unwrap(), "why");
    assert!(find(&path, "\"; drop").unwrap().is_none());
}

#[test]
fn a_line_without_an_end_is_found_out_and_not_read_whole() {
    // Ends only where the limit does: read whole, it would never come back.
    let endless = BufReader::new(std::io::repeat(b'x'));
    assert_eq!(verify(endless).unwrap_err().line, 1);
    let (_temp, path) = log(1);
    let whole = std::fs::read(&path).unwrap();
    let then_endless = BufReader::new(whole.as_slice().chain(std::io::repeat(b'x')));
    assert_eq!(verify(then_endless).unwrap_err().line, 3);
}

#[test]
fn a_batch_goes_on_with_the_chain_and_an_empty_one_is_none() {
    let (_temp, path) = log(1);
    let mut log = AuditLog::open(&path, NOW).unwrap();
    let batch: Vec<_> = (0..300).map(|n| Record::new("issuance").field("n", n)).collect();
    let receipt = log.append_many(NOW, &batch, Durability::Durable).unwrap();
    assert_eq!(receipt.seq, 301);
    assert!(log.append_many(NOW, &[], Durability::Durable).is_err());
    assert_eq!(log.append(NOW, Record::new("stop"), Durability::Durable).unwrap().seq, 302);
    let lines = lines(&path);
    assert_eq!(check(&lines).unwrap().by_kind.get("issuance"), Some(&300));
    assert!(lines[301].contains(&receipt.hash) && lines[302].contains(&receipt.hash), "the receipt is the last one's");
}

#[test]
fn a_batch_that_cannot_be_written_leaves_nothing_of_itself() {
    let (_temp, path) = log(1);
    let before = std::fs::read(&path).unwrap();
    let mut log = AuditLog::open(&path, NOW).unwrap();
    log.file = File::open(&path).unwrap();
    let batch: Vec<_> = (0..3).map(|n| Record::new("issuance").field("n", n)).collect();
    assert!(log.append_many(NOW, &batch, Durability::Durable).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(check(&lines(&path)).unwrap().records, 2);
}
