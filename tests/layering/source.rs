//! Which paths a Rust source names. It reads tokens, not meaning, which is enough for `use` lines and for paths in the
//! middle of code; comments and literals are skipped.

use std::{collections::HashMap, iter::Peekable, str::Chars};

/// A path of at least two names, or one of a `use`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NamedPath {
    /// What is named, from its crate on; this package's own begin with `crate`.
    pub(crate) names: Vec<String>,
    pub(crate) line: usize,
}

/// All paths that `source` names, with imported names spelled out. `module` is the module that the file holds, such as
/// `["keeper", "core"]`.
pub(crate) fn named_paths(module: &[&str], source: &str) -> Vec<NamedPath> {
    let mut reader = Reader {
        tokens: tokens(source),
        at: 0,
        module: module.iter().map(|&name| name.to_owned()).collect(),
        open_braces: 0,
        inline_modules: Vec::new(),
        imports: HashMap::new(),
        imported: Vec::new(),
        inline: Vec::new(),
    };
    reader.read();
    let Reader { imports, mut imported, inline, .. } = reader;
    imported.extend(inline.into_iter().map(|mut path| {
        if let Some(import) = imports.get(&path.names[0]) {
            path.names.splice(..1, import.iter().cloned());
        }
        path
    }));
    imported.sort_by_key(|path| path.line);
    imported
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    /// `::`
    Joint,
    Sign(char),
}

struct Reader {
    tokens: Vec<(Token, usize)>,
    at: usize,
    module: Vec<String>,
    open_braces: usize,
    /// How many braces were open where each module inside the file began.
    inline_modules: Vec<usize>,
    imports: HashMap<String, Vec<String>>,
    imported: Vec<NamedPath>,
    inline: Vec<NamedPath>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, line)| *line)
    }

    fn read(&mut self) {
        while let Some(token) = self.peek(0) {
            match token {
                Token::Word(word) if word == "mod" && self.peek(2) == Some(&Token::Sign('{')) => {
                    let name = self.word(1).unwrap_or_default().to_owned();
                    self.module.push(name);
                    self.inline_modules.push(self.open_braces);
                    self.open_braces += 1;
                    self.at += 3;
                }
                Token::Word(word) if word == "use" && self.peek(1) != Some(&Token::Sign('<')) => {
                    self.at += 1;
                    self.use_tree(&[]);
                }
                Token::Word(word) if word == "crate" && self.follows_extern() => {
                    let line = self.line();
                    let names = self.word(1).map(|name| vec![name.to_owned()]).unwrap_or_default();
                    self.imported.push(NamedPath { names, line });
                    self.at += 2;
                }
                Token::Word(_) => self.inline_path(),
                // What comes after `<T as Trait>::` belongs to the type.
                Token::Joint if self.at > 0 && self.tokens[self.at - 1].0 == Token::Sign('>') => {
                    self.at += 1;
                    self.words();
                }
                Token::Sign('{') => {
                    self.open_braces += 1;
                    self.at += 1;
                }
                Token::Sign('}') => {
                    self.open_braces = self.open_braces.saturating_sub(1);
                    if self.inline_modules.pop_if(|began| *began == self.open_braces).is_some() {
                        self.module.pop();
                    }
                    self.at += 1;
                }
                Token::Joint | Token::Sign(_) => self.at += 1,
            }
        }
    }

    fn follows_extern(&self) -> bool {
        self.at > 0 && self.tokens[self.at - 1].0 == Token::Word("extern".to_owned())
    }

    /// The words from here on that `::` joins.
    fn words(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(word) = self.word(0).map(str::to_owned) {
            words.push(word);
            self.at += 1;
            if self.peek(0) != Some(&Token::Joint) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        words
    }

    fn inline_path(&mut self) {
        let line = self.line();
        let words = self.words();
        if words.len() > 1 {
            let names = self.absolute(&words);
            self.inline.push(NamedPath { names, line });
        }
    }

    /// One path of a `use` with all that its braces hold, up to the `,`, `}` or `;` after it.
    fn use_tree(&mut self, prefix: &[String]) {
        let line = self.line();
        if self.peek(0) == Some(&Token::Joint) {
            self.at += 1;
        }
        let mut path = prefix.to_vec();
        path.extend(self.words());
        if self.peek(0) == Some(&Token::Joint) {
            self.at += 1;
        }
        match self.peek(0) {
            Some(Token::Sign('{')) => {
                self.at += 1;
                while self.peek(0).is_some_and(|token| *token != Token::Sign('}')) {
                    self.use_tree(&path);
                    if self.peek(0) == Some(&Token::Sign(',')) {
                        self.at += 1;
                    }
                }
                self.at += 1;
            }
            Some(Token::Sign('*')) => {
                path.push("*".to_owned());
                self.at += 1;
                self.import(&path, None, line);
            }
            _ => {
                if path.len() > 1 {
                    path.pop_if(|last| last == "self");
                }
                let alias = (self.word(0) == Some("as")).then(|| self.word(1).unwrap_or_default().to_owned());
                if alias.is_some() {
                    self.at += 2;
                }
                self.import(&path, alias, line);
            }
        }
        // A token that no `use` has here is not ours to understand, but must not stop us either.
        if !matches!(self.peek(0), Some(Token::Sign(',' | '}' | ';')) | None) {
            self.at += 1;
        }
    }

    fn import(&mut self, path: &[String], alias: Option<String>, line: usize) {
        let names = self.absolute(path);
        if let Some(last) = names.last().filter(|last| *last != "*") {
            self.imports.insert(alias.unwrap_or_else(|| last.clone()), names.clone());
        }
        self.imported.push(NamedPath { names, line });
    }

    /// The path with `self`, `super` and this package's own name resolved.
    fn absolute(&self, path: &[String]) -> Vec<String> {
        let Some(first) = path.first() else { return Vec::new() };
        let mut names = vec!["crate".to_owned()];
        let supers = path.iter().take_while(|name| *name == "super").count();
        let skipped = match first.as_str() {
            "crate" | "b2binpay_broker" => 1,
            "self" => {
                names.extend(self.module.iter().cloned());
                1
            }
            "super" => {
                names.extend(self.module.iter().take(self.module.len().saturating_sub(supers)).cloned());
                supers
            }
            _ => return path.to_vec(),
        };
        names.extend(path[skipped..].iter().cloned());
        names
    }
}

fn tokens(source: &str) -> Vec<(Token, usize)> {
    let mut lexer = Lexer { rest: source.chars().peekable(), line: 1, tokens: Vec::new() };
    while let Some(c) = lexer.next() {
        lexer.token(c);
    }
    lexer.tokens
}

struct Lexer<'s> {
    rest: Peekable<Chars<'s>>,
    line: usize,
    tokens: Vec<(Token, usize)>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn ahead(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn second(&self) -> Option<char> {
        self.rest.clone().nth(1)
    }

    fn token(&mut self, c: char) {
        let line = self.line;
        match (c, self.ahead()) {
            ('/', Some('/')) => while self.next().is_some_and(|c| c != '\n') {},
            ('/', Some('*')) => self.skip_block_comment(),
            ('"', _) => self.skip_text(),
            ('\'', Some('\\')) => {
                self.next();
                self.next();
                while self.next().is_some_and(|c| c != '\'') {}
            }
            ('\'', _) if self.second() == Some('\'') => {
                self.next();
                self.next();
            }
            ('\'', _) => drop(self.word(String::new())),
            (':', Some(':')) => {
                self.next();
                self.tokens.push((Token::Joint, line));
            }
            (c, _) if c.is_ascii_digit() => drop(self.word(String::new())),
            (c, _) if c.is_alphabetic() || c == '_' => self.word_or_text(c),
            (c, _) if c.is_whitespace() => {}
            (c, _) => self.tokens.push((Token::Sign(c), line)),
        }
    }

    fn word(&mut self, mut word: String) -> String {
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
        }
        word
    }

    fn word_or_text(&mut self, first: char) {
        let line = self.line;
        let mut word = self.word(first.to_string());
        let is_raw = matches!(word.as_str(), "r" | "br" | "cr");
        match self.ahead() {
            Some('"') if is_raw => return self.skip_raw_text(),
            Some('#') if is_raw && matches!(self.second(), Some('#' | '"')) => return self.skip_raw_text(),
            // A name that would be a keyword.
            Some('#') if word == "r" => {
                self.next();
                word = self.word(String::new());
            }
            _ => {}
        }
        self.tokens.push((Token::Word(word), line));
    }

    fn skip_text(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => drop(self.next()),
                _ => {}
            }
        }
    }

    fn skip_raw_text(&mut self) {
        let mut fence = 0;
        while self.rest.next_if_eq(&'#').is_some() {
            fence += 1;
        }
        self.next();
        while let Some(c) = self.next() {
            if c == '"' && (0..fence).all(|_| self.rest.next_if_eq(&'#').is_some()) {
                return;
            }
        }
    }

    fn skip_block_comment(&mut self) {
        self.next();
        let mut depth = 1;
        while depth > 0 {
            match (self.next(), self.ahead()) {
                (None, _) => return,
                (Some('*'), Some('/')) => {
                    self.next();
                    depth -= 1;
                }
                (Some('/'), Some('*')) => {
                    self.next();
                    depth += 1;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<(String, usize)> {
        named_paths(&["keeper", "core"], source)
            .into_iter()
            .map(|path| (path.names.join("::"), path.line))
            .collect()
    }

    fn only(source: &str) -> String {
        match names(source).as_slice() {
            [(path, _)] => path.clone(),
            paths => panic!("{source}: {paths:?}"),
        }
    }

    #[test]
    fn a_use_tree_is_spelled_out_line_by_line() {
        let source = "use std::{fs, io::{self, Read as _}, net::*};\npub(crate) use ::http as h;\n";
        let expected =
            [("std::fs", 1), ("std::io", 1), ("std::io::Read", 1), ("std::net::*", 1), ("http", 2)];
        assert_eq!(names(source), expected.map(|(path, line)| (path.to_owned(), line)));
    }

    #[test]
    fn an_imported_name_stands_for_what_it_was_imported_from() {
        let paths =
            names("use std::env;\nuse jiff::Timestamp as Time;\nfn f() { env::var(\"A\"); Time::now(); }");
        assert!(paths.contains(&("std::env::var".to_owned(), 3)), "{paths:?}");
        assert!(paths.contains(&("jiff::Timestamp::now".to_owned(), 3)), "{paths:?}");
    }

    #[test]
    fn relative_paths_are_resolved_from_where_they_stand() {
        assert_eq!(only("use self::days::A;"), "crate::keeper::core::days::A");
        assert_eq!(only("use super::task::B;"), "crate::keeper::task::B");
        assert_eq!(only("fn f() { super::super::grpc::C() }"), "crate::grpc::C");
        assert_eq!(only("mod tests { use super::super::D; }"), "crate::keeper::D");
        assert_eq!(only("mod tests { fn f() {} } use super::E;"), "crate::keeper::E");
        assert_eq!(only("use b2binpay_broker::cli;"), "crate::cli");
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let source = r###"
            // crate::a
            /* crate::b /* crate::c */ crate::d */
            /// [`crate::e`]
            const A: &str = "crate::f \" crate::g";
            const B: &[u8] = br##"crate::h " "# crate::i"##;
            const C: [char; 3] = ['"', '\'', '\u{22}'];
            fn f<'a>(x: &'a str) -> &'a str { x }
            const D: &str = "";
        "###;
        assert_eq!(names(source), []);
        assert_eq!(only("const A: char = '\"'; fn f() { crate::a() }"), "crate::a");
        assert_eq!(only("fn f<'a>() { crate::a::<'a>() }"), "crate::a");
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        assert_eq!(only("#[tonic::async_trait] trait A {}"), "tonic::async_trait");
        assert_eq!(only("tonic::include_proto!(\"x\");"), "tonic::include_proto");
        assert_eq!(only("extern crate reqwest;"), "reqwest");
        assert_eq!(only("fn f(a: Vec<reqwest::Url>) {}"), "reqwest::Url");
        assert_eq!(only("fn f() { let x = y.z::<reqwest::Url>().w; }"), "reqwest::Url");
        assert_eq!(only("fn f() { <T as reqwest::A>::b::c() }"), "reqwest::A");
        assert_eq!(only("fn f() -> impl A + use<'_> { crate::r#type::a() }"), "crate::type::a");
    }
}
