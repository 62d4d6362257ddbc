use super::*;
use std::io::Read;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn log(records: usize) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    let mut log = AuditLog::open(&path, Parts::default(), NOW).unwrap();
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
    let mut again = AuditLog::open(&path, Parts::default(), NOW).unwrap();
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
    drop(AuditLog::open(&path, Parts::default(), NOW).unwrap());
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
    assert_eq!(AuditLog::open(&path, Parts::default(), NOW).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_log_that_others_can_read_or_a_link_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (temp, path) = log(1);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(AuditLog::open(&path, Parts::default(), NOW).is_err());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(AuditLog::open(&link, Parts::default(), NOW).is_err());
}

#[test]
fn a_record_over_the_limit_is_cut_and_the_chain_holds() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    let mut log = AuditLog::open(&path, Parts::default(), NOW).unwrap();
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
    let mut log = AuditLog::open(&path, Parts::default(), NOW).unwrap();
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
    let mut log = AuditLog::open(&path, Parts::default(), NOW).unwrap();
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
    let mut log = AuditLog::open(&path, Parts::default(), NOW).unwrap();
    log.file = File::open(&path).unwrap();
    let batch: Vec<_> = (0..3).map(|n| Record::new("issuance").field("n", n)).collect();
    assert!(log.append_many(NOW, &batch, Durability::Durable).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(check(&lines(&path)).unwrap().records, 2);
}

const SMALL: Parts = Parts { bytes: 1500, keep: 0 };

fn fill(path: &Path, parts: Parts, records: usize) {
    let mut log = AuditLog::open(path, parts, NOW).unwrap();
    for n in 0..records {
        log.append(NOW, Record::new("stop").field("n", n), Durability::Buffered).unwrap();
    }
}

fn check_parts(files: &[PathBuf]) -> Result<Summary, ChainError> {
    let mut verifier = Verifier::default();
    for file in files {
        verifier.part(BufReader::new(File::open(file).unwrap()))?;
    }
    verifier.finish()
}

#[test]
fn a_log_goes_on_in_further_files_and_stays_one_chain() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    fill(&path, SMALL, 40);
    fill(&path, SMALL, 10);
    let files = all_parts(&path).unwrap();
    assert!(files.len() > 3, "{files:?}");
    let summary = check_parts(&files).unwrap();
    let continued = u64::try_from(files.len() - 1).unwrap();
    assert_eq!((summary.first, summary.records), (0, 51 + continued));
    assert_eq!(summary.by_kind.get("continued"), Some(&continued));
    // Without the oldest part the rest holds, and says where it begins; without one in the middle it does not.
    assert!(check_parts(&files[1..]).unwrap().first > 0);
    let gap: Vec<PathBuf> = files.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, file)| file.clone()).collect();
    assert!(check_parts(&gap).unwrap_err().why.contains("does not follow"));
    let mut swapped = files.clone();
    swapped.swap(1, 2);
    assert!(check_parts(&swapped).is_err());
}

#[test]
fn a_record_in_an_old_part_is_found_and_the_first_of_two_counts() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    let reference = "01JD8Z00000000000000000000";
    let mut log = AuditLog::open(&path, SMALL, NOW).unwrap();
    log.append(NOW, Record::new("denied").reference(reference).field("n", 1), Durability::Durable).unwrap();
    drop(log);
    fill(&path, SMALL, 30);
    let mut log = AuditLog::open(&path, SMALL, NOW).unwrap();
    log.append(NOW, Record::new("denied").reference(reference).field("n", 2), Durability::Durable).unwrap();
    let found = find(&path, reference).unwrap().unwrap();
    assert_eq!(found.get("n"), Some(&Value::from(1)));
}

#[test]
fn parts_beyond_those_that_stay_are_removed_after_that_is_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    fill(&path, Parts { keep: 2, ..SMALL }, 60);
    let files = all_parts(&path).unwrap();
    assert_eq!(files.len(), 3, "{files:?}");
    let summary = check_parts(&files).unwrap();
    assert!(summary.first > 0 && summary.by_kind.contains_key("part-removed"), "{summary:?}");
}

#[test]
fn a_host_that_ended_between_two_files_goes_on_in_the_chain() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    fill(&path, Parts::default(), 5);
    for empty in [false, true] {
        let last = check_parts(&all_parts(&path).unwrap()).unwrap();
        std::fs::rename(&path, parts::name(&path, last.first + last.records - 1)).unwrap();
        if empty {
            drop(parts::open(&path).unwrap());
        }
        fill(&path, Parts::default(), 5);
        let summary = check_parts(&all_parts(&path).unwrap()).unwrap();
        assert_eq!((summary.first, summary.records), (0, last.records + 6));
    }
}

#[test]
fn a_log_that_cannot_go_on_in_a_new_file_stays_in_the_old_one() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    let mut log = AuditLog::open(&path, SMALL, NOW).unwrap();
    // The name of the next part is taken by a folder with something in it: nothing can be renamed to it.
    for last in 0..40 {
        std::fs::create_dir_all(parts::name(&path, last).join("in the way")).unwrap();
    }
    for n in 0..20 {
        log.append(NOW, Record::new("stop").field("n", n), Durability::Durable).unwrap();
    }
    assert_eq!(check_parts(&[path]).unwrap().records, 21);
}
