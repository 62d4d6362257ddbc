//! The text of a refusal. Everything from outside is escaped and cut; the whole is at most [`DENIAL_BYTES`].

use super::{Denial, DenialKind, FixContext};
use crate::limits::DENIAL_BYTES;
use crate::shown;

pub(super) fn render(denial: &Denial, context: &FixContext) -> String {
    let core = &denial.core;
    let short = lines(denial, &fix(denial, context), context);
    if short.len() <= DENIAL_BYTES {
        return short;
    }
    // A fix that was cut would not work: it is left out as a whole.
    let no_fix = match core.edit {
        Some(_) => "too long for this text: it is in the JSON form of this refusal",
        None => "none",
    };
    shown_lines(&lines(denial, no_fix, context))
}

/// Words joined for a POSIX shell, quoted where needed. What no terminal should see is escaped in ANSI-C quotes.
pub(crate) fn shell_line(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn lines(denial: &Denial, fix: &str, context: &FixContext) -> String {
    let core = &denial.core;
    let out = |text: &str, most: usize| shown::outside(text, most);
    let guards = if core.errors.is_empty() {
        String::new()
    } else {
        format!(": {}", shown::inside(&core.errors.join("; "), 300))
    };
    let mut lines = vec![
        format!("denied {}: component `{}` may not {}", core.code, out(&core.component, 128), core.phrase),
        format!(
            "  who      {}   {}  signer {} (group {})",
            out(&core.spiffe_id, 256),
            out(&core.digest, 19),
            out(&core.signer, 16),
            out(&core.signer_group, 64)
        ),
        format!("  what     {}", core.details),
        format!(
            "  why      {}; policy generation {}, slice of {} policies, {} errors{guards}",
            shown::inside(&core.why, 400),
            core.generation,
            core.policies,
            core.errors.len()
        ),
    ];
    if let Some(nearest) = &core.nearest {
        lines.push(format!("  nearest  {}  {}  {}", nearest.id, nearest.place, nearest.differs));
    }
    lines.push(format!("  fix      {fix}"));
    if let Some(reference) = denial.reference() {
        let config = context.config.as_ref().map(|path| format!(" --config {}", quoted(&path.display().to_string())));
        lines.push(format!(
            "  replay   {} policy explain{} {}",
            context.program,
            config.unwrap_or_default(),
            out(reference, 32)
        ));
    }
    lines.join("\n")
}

fn fix(denial: &Denial, context: &FixContext) -> String {
    match (denial.fix_line(context), denial.kind()) {
        (Some(line), _) => line,
        (None, DenialKind::NoGrant) => "none: this cannot be granted in the short form".to_owned(),
        (None, DenialKind::Forbidden) => "none: no grant can allow this".to_owned(),
        (None, DenialKind::CannotDecide) => {
            "look at the policy and at the host's log; nothing is allowed until it can be decided".to_owned()
        }
    }
}

fn shown_lines(text: &str) -> String {
    let mut out = text.to_owned();
    if out.len() > DENIAL_BYTES {
        let end = (0..=DENIAL_BYTES - 2).rev().find(|end| out.is_char_boundary(*end)).unwrap_or(0);
        out.truncate(end);
        out.push_str("..");
    }
    out
}

fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,[]".contains(&b);
    let glob = |b: u8| b"[]".contains(&b);
    if !word.is_empty() && word.bytes().all(|b| plain(b) && !glob(b)) {
        return word.to_owned();
    }
    if word.chars().all(|c| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric()) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let escaped: String = word
        .bytes()
        .map(|b| match b {
            b'\'' | b'\\' => format!("\\{}", char::from(b)),
            b' ' | b'!'..=b'~' => char::from(b).to_string(),
            _ => format!("\\x{b:02x}"),
        })
        .collect();
    format!("$'{escaped}'")
}
