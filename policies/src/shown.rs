//! Text from outside, made fit to be read: printable ASCII stays, the rest is escaped, and what is long is cut and marked.

/// Text that somebody else chose.
pub(crate) fn outside(text: &str, most: usize) -> String {
    shown(text, most, |c| c == ' ' || c.is_ascii_graphic())
}

/// Text of the operator's own files: other scripts stay readable, control characters do not act.
pub(crate) fn inside(text: &str, most: usize) -> String {
    shown(text, most, |c| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric())
}

fn shown(text: &str, most: usize, plain: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len().min(most) + MARK.len());
    for c in text.chars() {
        let before = out.len();
        if plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
        if out.len() > most {
            out.truncate(before);
            out.push_str(MARK);
            break;
        }
    }
    out
}

const MARK: &str = "..";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_direction_marks_do_not_survive() {
        for text in ["\u{1b}[31mred", "a\nb", "a\u{202e}b", "a\u{0}b", "\u{9b}31m"] {
            for shown in [outside(text, 100), inside(text, 100)] {
                assert!(shown.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{shown}");
            }
        }
    }

    #[test]
    fn long_text_is_cut_and_marked() {
        assert_eq!(outside("abcdef", 6), "abcdef");
        assert_eq!(outside("abcdefg", 6), "abcdef..");
        assert!(outside(&"\u{1b}".repeat(1 << 20), 64).len() <= 66);
    }

    #[test]
    fn the_operators_own_script_stays_readable() {
        assert_eq!(inside("Bücher", 100), "Bücher");
        assert_eq!(outside("Bücher", 100), "B\\u{fc}cher");
    }
}
