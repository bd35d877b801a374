//! A Rust file as the checks see it: its code without comments and literals, its functions, and
//! where its tests are. A scanner, not a parser: the compiler has already taken the file.

use std::ops::Range;

/// What the checks need to know of a Rust file.
pub(crate) struct Rust {
    /// The text, byte for byte, with comments and the content of literals blanked.
    pub(crate) code: String,
    /// Byte ranges of string and character literals, quotes included.
    pub(crate) literals: Vec<Range<usize>>,
    pub(crate) functions: Vec<Function>,
    /// Names of `#[cfg(test)] mod name;`.
    pub(crate) test_modules: Vec<String>,
    /// The whole file holds tests.
    pub(crate) all_test: bool,
    /// Byte ranges under `#[cfg(test)]`.
    test_ranges: Vec<Range<usize>>,
    /// Byte ranges of `mod name { … }`.
    inline_modules: Vec<Range<usize>>,
}

/// A function with a body.
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of its `fn`, counted from 1.
    pub(crate) line: usize,
    /// From `fn` to its closing brace.
    pub(crate) lines: usize,
    /// It carries `#[test]`.
    pub(crate) test: bool,
}

impl Rust {
    pub(crate) fn parse(path: &str, text: &str) -> Rust {
        let (code, literals) = blank(text);
        let mut rust = Rust {
            code,
            literals,
            functions: Vec::new(),
            test_modules: Vec::new(),
            all_test: path.split('/').any(|name| name == "tests" || name == "tests.rs"),
            test_ranges: Vec::new(),
            inline_modules: Vec::new(),
        };
        rust.scan();
        rust
    }

    /// The line, counted from 1, of a byte of [`Rust::code`].
    pub(crate) fn line(&self, at: usize) -> usize {
        1 + self.code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Whether a byte of [`Rust::code`] is test code.
    pub(crate) fn in_test(&self, at: usize) -> bool {
        self.all_test || self.test_ranges.iter().any(|range| range.contains(&at))
    }

    /// How many `mod name { … }` a byte of [`Rust::code`] stands in.
    pub(crate) fn inline_depth(&self, at: usize) -> usize {
        self.inline_modules.iter().filter(|range| range.contains(&at)).count()
    }

    /// The places of `word` in the code, as a whole word.
    pub(crate) fn places<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let bytes = self.code.as_bytes();
            let before = at.checked_sub(1).map(|at| bytes[at]);
            let after = bytes.get(at + word.len()).copied();
            let inner = |byte: Option<u8>| byte.is_some_and(is_word);
            let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
            let longer = inner(before) && is_word(first) || inner(after) && is_word(last);
            !longer
        })
    }

    /// Walks over the words, and remembers the attributes before an item.
    fn scan(&mut self) {
        let code = self.code.clone();
        let bytes = code.as_bytes();
        let mut attributes: Vec<(usize, String)> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'#' if bytes.get(at + 1) == Some(&b'[') => {
                    let end = matching(bytes, at + 1);
                    let text = code[at + 2..end].split_whitespace().collect::<String>();
                    attributes.push((at, text));
                    at = end + 1;
                }
                b';' | b'{' | b'}' | b',' => {
                    attributes.clear();
                    at += 1;
                }
                byte if is_word(byte) => {
                    let end = word_end(bytes, at);
                    self.word(&code, at, end, &attributes);
                    at = end;
                }
                b'(' => at += 1,
                _ => at += 1,
            }
        }
        for (at, _) in attribute_places(&code, "cfg(test)") {
            self.test_ranges.push(at..item_end(bytes, at).0);
        }
    }

    fn word(&mut self, code: &str, at: usize, end: usize, attributes: &[(usize, String)]) {
        let bytes = code.as_bytes();
        let word = &code[at..end];
        if !matches!(word, "fn" | "mod") {
            return;
        }
        let name_at = skip_space(bytes, end);
        if !bytes.get(name_at).is_some_and(|byte| is_word(*byte)) {
            return;
        }
        let name = code[name_at..word_end(bytes, name_at)].to_string();
        let (item_end, has_body) = item_end(bytes, at);
        let carries = |wanted: &str| attributes.iter().any(|(_, text)| text == wanted);
        match (word, has_body) {
            ("fn", true) => {
                let line = self.line(at);
                let lines = self.line(item_end - 1) - line + 1;
                // `tokio::test` may have arguments.
                let name_of = |text: &str| text.split('(').next().unwrap_or_default().to_owned();
                let mut names = attributes.iter().map(|(_, text)| name_of(text));
                let test = names.any(|text| text == "test" || text.ends_with("::test"));
                self.functions.push(Function { name, line, lines, test });
            }
            ("mod", true) => self.inline_modules.push(at..item_end),
            ("mod", false) if carries("cfg(test)") => self.test_modules.push(name),
            _ => {}
        }
    }
}

/// The places of an attribute, without white space inside.
fn attribute_places<'a>(code: &'a str, wanted: &'a str) -> impl Iterator<Item = (usize, ())> + 'a {
    code.match_indices("#[").filter_map(move |(at, _)| {
        let end = matching(code.as_bytes(), at + 1);
        let text = code[at + 2..end].split_whitespace().collect::<String>();
        (text == wanted).then_some((at, ()))
    })
}

/// One past the end of the item that begins at `at`, and whether it has a body in braces.
fn item_end(bytes: &[u8], mut at: usize) -> (usize, bool) {
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => at = matching(bytes, at) + 1,
            b'{' => return ((matching(bytes, at) + 1).min(bytes.len()), true),
            b';' => return (at + 1, false),
            _ => at += 1,
        }
    }
    (bytes.len(), false)
}

/// The place of the bracket that closes the one at `open`; the last byte where none does.
pub(crate) fn matching(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    bytes.len() - 1
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn word_end(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count()
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Blanks comments and the content of literals; line ends and lengths stay.
fn blank(text: &str) -> (String, Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let (mut code, mut literals) = (bytes.to_vec(), Vec::new());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at {
            if bytes[at] != b'/' {
                literals.push(at..end);
            }
            for byte in &mut code[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
        } else if is_word(bytes[at]) {
            at = word_end(bytes, at);
        } else {
            at += 1;
        }
    }
    // What is blanked begins and ends at ASCII, so whole characters went.
    (String::from_utf8_lossy(&code).into_owned(), literals)
}

/// One past the end of the comment or literal that begins at `at`; `at` where none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + rest.iter().take_while(|byte| **byte != b'\n').count();
    }
    if rest.starts_with(b"/*") {
        return block_comment_end(bytes, at);
    }
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count().min(2);
    for prefix in [0, prefix] {
        let quoted = &rest[prefix..];
        let hashes = quoted.iter().take_while(|byte| **byte == b'#').count();
        let raw = rest[..prefix].contains(&b'r');
        if raw && quoted.get(hashes) == Some(&b'"') {
            let mut close = vec![b'"'];
            close.resize(1 + hashes, b'#');
            let begin = at + prefix + hashes + 1;
            let found = bytes[begin..].windows(close.len()).position(|window| window == close);
            return found.map_or(bytes.len(), |found| begin + found + close.len());
        }
        if !raw && quoted.first() == Some(&b'"') {
            return string_end(bytes, at + prefix, b'"');
        }
        if !raw && quoted.first() == Some(&b'\'') && is_char(&quoted[1..]) {
            return string_end(bytes, at + prefix, b'\'');
        }
    }
    at
}

/// Whether what follows a `'` is a character, not a lifetime.
fn is_char(rest: &[u8]) -> bool {
    match rest {
        [b'\\', ..] => true,
        [first, second, ..] if first.is_ascii() => *second == b'\'',
        [first, ..] => !first.is_ascii(),
        [] => false,
    }
}

fn string_end(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn block_comment_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0usize;
    let mut at = open;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Rust {
        Rust::parse("crates/x/src/a.rs", text)
    }

    #[test]
    fn comments_and_literals_are_blank_and_lifetimes_stay() {
        let text =
            "let a = \"fn\\\" x\"; // fn\nlet b: &'a str = r#\"}\"#; /* { /* */ } */ 'x' b'{'";
        let code = parse(text).code;
        assert_eq!(code.len(), text.len());
        assert!(!code.contains("fn") && !code.contains('}') && !code.contains('{'));
        assert!(code.contains("&'a str"));
    }

    #[test]
    fn a_prefix_that_ends_a_word_begins_no_literal() {
        assert!(parse("let number = 1; attr\n").code.contains("attr"));
    }

    #[test]
    fn functions_have_their_lines_and_tests_are_known() {
        let text = "fn a() {\n}\n#[test]\n#[should_panic]\nfn b()\nwhere\n    X: Y,\n{\n    c();\n}\ntrait T { fn d(&self); }\n\
            #[tokio::test(flavor = \"multi_thread\")]\nasync fn e() {\n}\n";
        let rust = parse(text);
        let found: Vec<_> =
            rust.functions.iter().map(|f| (f.name.as_str(), f.line, f.lines, f.test)).collect();
        assert_eq!(found, [("a", 1, 2, false), ("b", 5, 6, true), ("e", 13, 2, true)]);
    }

    #[test]
    fn test_code_is_known_by_its_attribute() {
        let text = "use crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n#[cfg(test)]\nmod far;\nuse crate::c;\n";
        let rust = parse(text);
        let tests: Vec<_> = rust.places("crate").map(|at| rust.in_test(at)).collect();
        assert_eq!(tests, [false, true, false]);
        assert_eq!(rust.test_modules, ["far"]);
        assert_eq!(
            rust.places("crate").map(|at| rust.inline_depth(at)).collect::<Vec<_>>(),
            [0, 1, 0]
        );
    }
}
