//! How deep raw Cedar may nest, checked on the text before anything parses it: Cedar's parser, validator and evaluator
//! recurse, and a stack that overflows ends the process.

use crate::limits::{RAW_DEPTH, RAW_OPERATORS};

/// Where a text nests too deep, and in what way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooDeep {
    pub(crate) at: usize,
    pub(crate) why: String,
}

/// Checks brackets, and operators of each policy: an expression nests no deeper than it has brackets and operators.
pub(crate) fn check(text: &str) -> Result<(), TooDeep> {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'/' if matches!(bytes.peek(), Some((_, b'/'))) => skip_line(&mut bytes),
            b'(' | b'[' | b'{' => {
                depth += 1;
                // `a["x"]["x"]` and `a.f().f()` nest without a bracket in a bracket.
                operators += 1;
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => operators = 0,
            b'&' | b'|' | b'+' | b'-' | b'*' | b'!' | b'.' | b'<' | b'>' | b'=' => operators += 1,
            _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                let mut end = at + 1;
                while let Some((next, _)) = bytes.next_if(|(_, b)| b.is_ascii_alphanumeric() || *b == b'_') {
                    end = next + 1;
                }
                operators += usize::from(text.get(at..end).is_some_and(|word| WORDS.contains(&word)));
            }
            _ => {}
        }
        if depth > RAW_DEPTH {
            return Err(TooDeep { at, why: format!("brackets nest deeper than {RAW_DEPTH}") });
        }
        if operators > RAW_OPERATORS {
            return Err(TooDeep { at, why: format!("a policy has more than {RAW_OPERATORS} operators") });
        }
    }
    Ok(())
}

/// Where each policy of a text begins, by its number; comments and white space before it are not of it.
pub(crate) fn statements(text: &str) -> Vec<usize> {
    let (mut depth, mut begun, mut starts) = (0_usize, false, Vec::new());
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        if byte == b'/' && matches!(bytes.peek(), Some((_, b'/'))) {
            skip_line(&mut bytes);
            continue;
        }
        if !begun && !byte.is_ascii_whitespace() {
            begun = true;
            starts.push(at);
        }
        match byte {
            b'"' => skip_string(&mut bytes),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => begun = false,
            _ => {}
        }
    }
    starts
}

fn skip_string(bytes: &mut impl Iterator<Item = (usize, u8)>) {
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn skip_line(bytes: &mut impl Iterator<Item = (usize, u8)>) {
    let _ = bytes.find(|(_, byte)| *byte == b'\n' || *byte == b'\r');
}

const WORDS: &[&str] = &["if", "then", "else", "in", "has", "like", "is", "when", "unless"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_operators_in_strings_and_comments_do_not_count() {
        let text = format!("\"{0}\\\"{0}\" // {0}\n[{1}]", "((((!!!!".repeat(1_000), "x::\"a.b.c\", ".repeat(10_000));
        assert_eq!(check(&text), Ok(()));
    }

    #[test]
    fn policies_begin_after_comments_and_what_ends_the_one_before() {
        let text =
            "// a; b\n@id(\"x;y\")\npermit (a); // (\n\n  forbid (b) when { \"\\\"; \" == c };permit(d);\n// end\n";
        let begins: Vec<&str> = statements(text).into_iter().map(|at| text.get(at..at + 6).unwrap()).collect();
        assert_eq!(begins, ["@id(\"x", "forbid", "permit"]);
        assert_eq!(statements(" // nothing"), [0; 0]);
    }

    #[test]
    fn limits_of_nesting_hold() {
        let open = |n: usize| check(&"(".repeat(n));
        assert_eq!(open(RAW_DEPTH), Ok(()));
        assert_eq!(open(RAW_DEPTH + 1).unwrap_err().at, RAW_DEPTH);
        let chain = |n: usize| check(&"+x".repeat(n));
        assert_eq!(chain(RAW_OPERATORS), Ok(()));
        assert!(chain(RAW_OPERATORS + 1).is_err());
        assert!(check(&"if ".repeat(RAW_OPERATORS + 1)).is_err());
        assert!(check(&"[\"x\"]".repeat(RAW_OPERATORS + 1)).is_err());
        let each = format!("{};", "+x".repeat(RAW_OPERATORS));
        assert_eq!(check(&each.repeat(5)), Ok(()), "each policy counts for itself");
        assert!(check(&format!("({0}){0}", each.replace(';', " ; "))).is_err(), "a semicolon inside ends no policy");
    }
}
