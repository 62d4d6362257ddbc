//! The fenced blocks of a Markdown document, to be run as they stand.

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// What stands behind its opening fence.
    pub language: String,
    /// Its lines.
    pub text: String,
}

/// The blocks of a document.
pub fn blocks(text: &str) -> Vec<Block> {
    let (mut found, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some(Block { language: language.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}
