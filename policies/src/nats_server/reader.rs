//! The reader: the format of nats-server's configuration files (its own mixture of JSON, YAML and what BIND had).

use super::value::{Entry, Map, Value};
use crate::limits::{SERVER_BYTES, SERVER_DEPTH, SERVER_FILES, SERVER_VALUES, SERVER_VARIABLES};

/// Gives the text of an included file: first the file that includes (an index), then the path as written.
pub type Loader<'a> = dyn FnMut(usize, &str) -> Result<Loaded, String> + 'a;

/// A file that was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to call it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why a text is no configuration. Who wrote it erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}: {why}")]
pub struct ReadError {
    /// The file.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// Reads a file and those that it includes. The second result is the names of all files, the first one first.
pub fn read(first: Loaded, load: &mut Loader<'_>) -> Result<(Map, Vec<String>), ReadError> {
    let mut session = Session { names: Vec::new(), bytes: 0, values: 0, variables: 0, load };
    let mut scopes = vec![Map::default()];
    session.file(first, &mut scopes, 0)?;
    Ok((scopes.pop().unwrap_or_default(), session.names))
}

struct Session<'a, 'b> {
    names: Vec<String>,
    bytes: usize,
    values: usize,
    variables: usize,
    load: &'a mut Loader<'b>,
}

impl Session<'_, '_> {
    /// What a variable stands for. Each use counts as what it brings: a few lines must not become gigabytes.
    fn variable(&mut self, cursor: &Cursor<'_>, scopes: &[Map], name: &str, depth: usize) -> Result<Value, ReadError> {
        self.variables += 1;
        if self.variables > SERVER_VARIABLES {
            return Err(cursor.fail(format!("more than {SERVER_VARIABLES} uses of variables")));
        }
        let defined = scopes.iter().rev().find_map(|scope| scope.entries.iter().rev().find(|entry| entry.key == name));
        let Some(defined) = defined else { return Ok(Value::Unknown(name.to_owned())) };
        let (values, bytes) = defined.value.weight();
        if depth + defined.value.depth() > SERVER_DEPTH + 1 {
            return Err(cursor.fail(format!("nested deeper than {SERVER_DEPTH}")));
        }
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > SERVER_VALUES || self.bytes > SERVER_BYTES {
            return Err(cursor.fail("variables that make the configuration larger than one may be"));
        }
        Ok(defined.value.clone())
    }
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    file: usize,
    name: String,
}

impl Session<'_, '_> {
    /// Reads a file into the innermost map.
    fn file(&mut self, loaded: Loaded, scopes: &mut Vec<Map>, depth: usize) -> Result<(), ReadError> {
        let fail = |why: String| ReadError { name: loaded.name.clone(), line: 1, why };
        self.bytes = self.bytes.saturating_add(loaded.text.len());
        if self.bytes > SERVER_BYTES {
            return Err(fail(format!("larger than {} MiB with what it includes", SERVER_BYTES >> 20)));
        }
        if self.names.len() >= SERVER_FILES {
            return Err(fail(format!("more than {SERVER_FILES} files, or files that include one another")));
        }
        let mut cursor =
            Cursor { text: &loaded.text, at: 0, line: 1, file: self.names.len(), name: loaded.name.clone() };
        self.names.push(loaded.name.clone());
        self.entries(&mut cursor, scopes, depth, false)
    }

    /// Entries up to the end of the text, or of a map.
    fn entries(
        &mut self,
        cursor: &mut Cursor<'_>,
        scopes: &mut Vec<Map>,
        depth: usize,
        in_map: bool,
    ) -> Result<(), ReadError> {
        if depth > SERVER_DEPTH {
            return Err(cursor.fail(format!("nested deeper than {SERVER_DEPTH}")));
        }
        loop {
            cursor.skip(&[',', ';']);
            match cursor.peek() {
                None if in_map => return Err(cursor.fail("a `{` without its `}`")),
                None => return Ok(()),
                // The whole file may stand in braces.
                Some('{') if depth == 0 && !in_map && cursor.before().trim().is_empty() => {
                    cursor.next();
                    self.entries(cursor, scopes, depth + 1, true)?;
                    continue;
                }
                Some('}') if in_map => {
                    cursor.next();
                    return Ok(());
                }
                Some(_) => {}
            }
            let line = cursor.line;
            let (key, quoted) = cursor.key()?;
            cursor.blank();
            if !quoted && key.eq_ignore_ascii_case("include") && !matches!(cursor.peek(), Some('=' | ':')) {
                let path = match cursor.scalar()? {
                    (path, _) if !path.is_empty() => path,
                    _ => return Err(cursor.fail("an include without a file")),
                };
                let loaded = (self.load)(cursor.file, &path).map_err(|why| cursor.fail(format!("include: {why}")))?;
                self.file(loaded, scopes, depth + 1)?;
                cursor.ends()?;
                continue;
            }
            if matches!(cursor.peek(), Some('=' | ':')) {
                cursor.next();
            }
            cursor.skip(&[]);
            let value = self.value(cursor, scopes, depth)?;
            cursor.ends()?;
            if let Some(scope) = scopes.last_mut() {
                scope.entries.push(Entry { key, value, file: cursor.file, line });
            }
        }
    }

    fn value(&mut self, cursor: &mut Cursor<'_>, scopes: &mut Vec<Map>, depth: usize) -> Result<Value, ReadError> {
        self.values += 1;
        if depth > SERVER_DEPTH || self.values > SERVER_VALUES {
            return Err(cursor.fail(format!("nested deeper than {SERVER_DEPTH}, or more than {SERVER_VALUES} values")));
        }
        match cursor.peek() {
            Some('{') => {
                cursor.next();
                scopes.push(Map::default());
                let read = self.entries(cursor, scopes, depth + 1, true);
                let map = scopes.pop().unwrap_or_default();
                read.map(|()| Value::Map(map))
            }
            Some('[') => {
                cursor.next();
                let mut list = Vec::new();
                loop {
                    cursor.skip(&[',']);
                    match cursor.peek() {
                        None => return Err(cursor.fail("a `[` without its `]`")),
                        Some(']') => {
                            cursor.next();
                            return Ok(Value::List(list));
                        }
                        Some(_) => list.push(self.value(cursor, scopes, depth + 1)?),
                    }
                }
            }
            Some('(') => cursor.block().map(Value::Text),
            Some(_) => {
                let (text, quoted) = cursor.scalar()?;
                match text.strip_prefix('$') {
                    // A hash of a password begins so, and is none.
                    Some(name) if !quoted && !is_hash(&text) => self.variable(cursor, scopes, name, depth),
                    _ if text.is_empty() && !quoted => Err(cursor.fail("a value is missing")),
                    _ => Ok(Value::Text(text)),
                }
            }
            None => Err(cursor.fail("a value is missing at the end")),
        }
    }
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn before(&self) -> &str {
        // Comments before the first brace do not count.
        let text = self.text.get(..self.at).unwrap_or_default();
        if text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with(['#', '/'])) { "" } else { text }
    }

    fn fail(&self, why: impl Into<String>) -> ReadError {
        ReadError { name: self.name.clone(), line: self.line, why: why.into() }
    }

    /// Skips white space, line ends, comments and these.
    fn skip(&mut self, also: &[char]) {
        loop {
            match self.peek() {
                Some(c) if c.is_whitespace() || also.contains(&c) => {
                    self.next();
                }
                Some('#') => self.skip_line(),
                Some('/') if self.rest().starts_with("//") => self.skip_line(),
                _ => return,
            }
        }
    }

    /// Skips white space within a line.
    fn blank(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.next();
        }
    }

    /// After an entry: a line's end, a comma, or the end of its block. Servers refuse anything else.
    fn ends(&mut self) -> Result<(), ReadError> {
        while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
            self.next();
        }
        match self.peek() {
            None | Some('\n' | ',' | ';' | '}' | '#') => Ok(()),
            Some('/') if self.rest().starts_with("//") => Ok(()),
            Some(_) => Err(self.fail("two entries on one line without a comma between")),
        }
    }

    fn skip_line(&mut self) {
        while !matches!(self.peek(), None | Some('\n')) {
            self.next();
        }
    }

    fn key(&mut self) -> Result<(String, bool), ReadError> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(|key| (key, true)),
            Some('}' | ']' | '[' | '(' | ')' | '=' | ':' | '{') => Err(self.fail("a key is missing")),
            _ => {
                let key =
                    self.bare(|c| c.is_whitespace() || matches!(c, '=' | ':' | '{' | '}' | '[' | ']' | ',' | ';'));
                if key.is_empty() { Err(self.fail("a key is missing")) } else { Ok((key, false)) }
            }
        }
    }

    /// A scalar, and whether it stood in quotes.
    fn scalar(&mut self) -> Result<(String, bool), ReadError> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(|text| (text, true)),
            Some('}' | ']') => Err(self.fail("a value is missing")),
            _ => {
                let text = self.bare(|c| c.is_whitespace() || matches!(c, ',' | ';' | ']' | '}'));
                if text.contains(['{', '[', '"']) {
                    return Err(self.fail("a bare value with a bracket or a quote in it: put it in quotes"));
                }
                Ok((text, false))
            }
        }
    }

    fn bare(&mut self, ends: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| !ends(*c)) {
            text.push(c);
            self.next();
        }
        text
    }

    fn quoted(&mut self, quote: char) -> Result<String, ReadError> {
        let begin = self.fail("a quote without its end");
        self.next();
        let mut text = String::new();
        loop {
            match self.next().ok_or_else(|| begin.clone())? {
                c if c == quote => return Ok(text),
                // Only double quotes know escapes.
                '\\' if quote == '"' => match self.next().ok_or_else(|| begin.clone())? {
                    't' => text.push('\t'),
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    c @ ('"' | '\\') => text.push(c),
                    'x' => {
                        let hex: String = (0..2).filter_map(|_| self.next()).collect();
                        let byte =
                            u8::from_str_radix(&hex, 16).map_err(|_| self.fail("an escape \\x without two digits"))?;
                        text.push(char::from(byte));
                    }
                    _ => return Err(self.fail("an escape that servers do not know")),
                },
                c => text.push(c),
            }
        }
    }

    /// `( .. )` on lines of their own.
    fn block(&mut self) -> Result<String, ReadError> {
        let begin = self.fail("a `(` without its `)`");
        self.next();
        let mut text = String::new();
        loop {
            match self.next().ok_or_else(|| begin.clone())? {
                ')' => return Ok(text.trim().to_owned()),
                c => text.push(c),
            }
        }
    }
}

fn is_hash(text: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Map, ReadError> {
        let first = Loaded { name: "server.conf".to_owned(), text: text.to_owned() };
        let mut files = |_: usize, path: &str| match path {
            "users.conf" => Ok(Loaded { name: path.to_owned(), text: "a: 1\nb { c: 2 }".to_owned() }),
            "self.conf" => Ok(Loaded { name: path.to_owned(), text: "include self.conf".to_owned() }),
            _ => Err("not there".to_owned()),
        };
        read(first, &mut files).map(|(map, _)| map)
    }

    #[test]
    fn the_ways_to_write_an_entry_are_all_read() {
        let text = "# comment\nlisten: 127.0.0.1:4222 // more\nport=4222\nname \"a b\"; debug: yes, x 'c\\d'\n\
                    tls { cert_file: \"./a.pem\", verify: true\n}\nlist [ a, \"b c\"\n d ]\nhash: $2a$11$abc\n\
                    v: 3\nw: $v\nenv: $HOME_OF\nblock (\n  text\n)\nsubject: \"$SYS.REQ\"\nauthorization: {timeout: 1.5}";
        let map = parse(text).unwrap();
        assert_eq!(map.text(&["LISTEN"]), Some("127.0.0.1:4222"));
        assert_eq!((map.text(&["name"]), map.text(&["x"])), (Some("a b"), Some("c\\d")));
        assert!(map.is_on(&["debug"]) && map.map(&["tls"]).unwrap().is_on(&["verify"]));
        assert_eq!(map.get(&["list"]).unwrap().elements().len(), 3);
        assert_eq!(
            (map.text(&["hash"]), map.text(&["w"]), map.text(&["block"])),
            (Some("$2a$11$abc"), Some("3"), Some("text"))
        );
        assert_eq!(map.get(&["env"]), Some(&Value::Unknown("HOME_OF".to_owned())));
        assert_eq!(map.text(&["subject"]), Some("$SYS.REQ"));
        assert_eq!(map.map(&["authorization"]).unwrap().get(&["timeout"]).unwrap().seconds(), Some(1.5));
        assert_eq!(map.entry(&["w"]).unwrap().line, 11);
    }

    #[test]
    fn an_include_stands_for_the_text_of_its_file() {
        let map = parse("include users.conf\nc { include 'users.conf' }").unwrap();
        assert_eq!(map.text(&["a"]), Some("1"));
        assert_eq!(map.map(&["c"]).unwrap().map(&["b"]).unwrap().text(&["c"]), Some("2"));
        assert!(parse("include self.conf").is_err());
        assert!(parse("include other.conf").unwrap_err().why.contains("not there"));
    }

    #[test]
    fn what_the_server_would_refuse_is_refused() {
        for text in [
            "a {",
            "a [1, 2",
            "a: \"x",
            "a: }",
            "a:",
            "= 1",
            "}",
            "a: \"\\q\"",
            "a: (x",
            "a: b{c",
            "include",
            "]",
            "a: 1 b: 2",
            "m { a: 1 b: 2 }",
            "m {} n {}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_do_not_multiply() {
        let deeper = |n: usize| format!("v{n} [[[$v{}]]]\n", n - 1);
        assert!(parse(&format!("v0 1\n{}", (1..20).map(deeper).collect::<String>())).is_err());
        let twice = |n: usize| format!("v{n} [$v{}, $v{}]\n", n - 1, n - 1);
        let text = |levels: usize| format!("v0 [{}]\n{}", "1,".repeat(100), (1..levels).map(twice).collect::<String>());
        assert!(parse(&text(5)).is_ok());
        assert!(parse(&text(60)).is_err());
        assert!(parse(&format!("a \"{}\"\nb [{}]", "x".repeat(1 << 20), "$a,".repeat(100))).is_err());
        assert!(parse(&format!("a 1\nb [{}]", "$a,".repeat(SERVER_VARIABLES))).is_ok());
        assert!(parse(&format!("a 1\nb [{}]", "$a,".repeat(SERVER_VARIABLES + 1))).is_err());
    }

    #[test]
    fn limits_of_depth_values_and_size_hold() {
        let nested = |depth: usize| format!("{}{}", "a { ".repeat(depth), "} ".repeat(depth));
        assert!(parse(&nested(SERVER_DEPTH)).is_ok());
        assert!(parse(&nested(SERVER_DEPTH + 1)).is_err());
        assert!(parse(&format!("a [{}]", "[".repeat(100_000))).is_err());
        assert!(parse(&format!("a [{}]", "1,".repeat(SERVER_VALUES - 1))).is_ok());
        assert!(parse(&format!("a [{}]", "1,".repeat(SERVER_VALUES + 1))).is_err());
        assert!(parse(&"#".repeat(SERVER_BYTES)).is_ok());
        assert!(parse(&"#".repeat(SERVER_BYTES + 1)).is_err());
    }
}
