//! What is wrong with a configuration, and where.
//!
//! **No error shows what stands in the file.** People paste secrets into the wrong place, and errors go to journals and
//! chats. So a message is made of our own words: names of keys that we know, types, ranges, positions. Text of the
//! file is quoted only where [`quotable`] says that it can't be a generated secret, and only where the reader would
//! be lost without it.

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
};

/// A place in a configuration file, as editors count: from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Position {
    /// Where the byte at `offset` of `text` stands. An offset inside a character counts as its beginning.
    pub(super) fn of(offset: usize, text: &str) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
        let line = before.split(|b| *b == b'\n').count();
        // A continuation byte of UTF-8 is not another character.
        let column = 1 + before[line_start..].iter().filter(|b| **b & 0xC0 != 0x80).count();
        Self { line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where. `None` where the file can't be read at all.
    pub position: Option<Position>,
    /// What, and what to write instead.
    pub message: String,
}

/// Everything that is wrong with a configuration file: one line each, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// What is wrong; at least one.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// The one thing that is wrong with a file as a whole.
    pub(super) fn whole(file: &Path, message: impl Into<String>) -> Self {
        let problem = Problem { position: None, message: message.into() };
        Self { file: file.to_owned(), problems: vec![problem] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (number, Problem { position, message }) in self.problems.iter().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            match position {
                Some(position) => write!(f, "{newline}{file}:{position}: {message}")?,
                None => write!(f, "{newline}{file}: {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A file that the configuration names and that can't be used.
#[derive(Debug)]
pub struct FileProblem<F> {
    /// The key that names it.
    pub key: &'static str,
    /// Where in the configuration it stands.
    pub position: Position,
    /// The file, if it could be opened.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub fault: F,
}

/// All such files: one line each.
#[derive(Debug)]
pub struct FileProblems<F> {
    /// The configuration file.
    pub config: PathBuf,
    /// What is wrong; at least one.
    pub problems: Vec<FileProblem<F>>,
}

impl<F: fmt::Display> fmt::Display for FileProblems<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{}: {}", self.config.display(), problem.position, problem.key)?;
            if let Some(path) = &problem.path {
                write!(f, " ({})", path.display())?;
            }
            write!(f, ": {}", problem.fault)?;
        }
        Ok(())
    }
}

impl<F: fmt::Debug + fmt::Display> std::error::Error for FileProblems<F> {}

/// Something that works but that the operator should know. `check` shows it, `serve` logs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// Where in the configuration, if it is about a place there.
    pub position: Option<Position>,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "line {position}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// What has been found so far. It is shared by all that look, so that one run tells everything.
pub(super) struct Findings<'t> {
    text: &'t str,
    problems: RefCell<Vec<(usize, String)>>,
    warnings: RefCell<Vec<(usize, String)>>,
}

impl<'t> Findings<'t> {
    pub(super) fn about(text: &'t str) -> Self {
        Self { text, problems: RefCell::default(), warnings: RefCell::default() }
    }

    /// Something at this byte is wrong. Who meets it twice may say it twice: it is told once.
    pub(super) fn wrong(&self, offset: usize, message: impl Into<String>) {
        let problem = (offset, message.into());
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Something at this byte is allowed but surprising.
    pub(super) fn odd(&self, offset: usize, message: impl Into<String>) {
        self.warnings.borrow_mut().push((offset, message.into()));
    }

    /// Where the byte at `offset` stands.
    pub(super) fn position(&self, offset: usize) -> Position {
        Position::of(offset, self.text)
    }

    /// The warnings, or what is wrong if anything is.
    pub(super) fn conclude(self, file: &Path) -> Result<Vec<Warning>, ConfigErrors> {
        if !self.problems.borrow().is_empty() {
            return Err(self.fail(file));
        }
        let warning = |(position, message)| Warning { position: Some(position), message };
        Ok(placed(self.warnings, self.text).map(warning).collect())
    }

    /// What is wrong.
    pub(super) fn fail(self, file: &Path) -> ConfigErrors {
        let problem = |(position, message)| Problem { position: Some(position), message };
        ConfigErrors {
            file: file.to_owned(),
            problems: placed(self.problems, self.text).map(problem).collect(),
        }
    }
}

/// What was found in `text`, in its order.
fn placed(found: RefCell<Vec<(usize, String)>>, text: &str) -> impl Iterator<Item = (Position, String)> {
    let mut found = found.into_inner();
    found.sort_by_key(|(offset, _)| *offset);
    found.into_iter().map(|(offset, message)| (Position::of(offset, text), message))
}

/// The name of a user, group or caller with quotes around it, to go behind a word such as "user"; nothing if it looks
/// like anything but a name.
pub(super) fn named(text: &str) -> String {
    if quotable(text) { format!(" \"{text}\"") } else { String::new() }
}

/// Whether `text` looks like a name that a person gave to a user, a group or a caller, and not like a generated secret:
/// short, in lower case, in short words, with digits only at their ends and few of them.
fn quotable(text: &str) -> bool {
    let characters =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    let mut words = text.split(['.', '_', '-']);
    let word = |word: &str| {
        word.len() <= 16
            && !word.trim_end_matches(|c: char| c.is_ascii_digit()).contains(|c: char| c.is_ascii_digit())
    };
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() <= 32 && characters && digits <= 4 && words.all(word)
}

/// The word of `known` that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (taken, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = taken + 1;
        for (column, d) in other.iter().enumerate() {
            let changed = diagonal + usize::from(c != *d);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_as_editors_do() {
        let text = "a\nbä€c\r\n\n";
        let at = |offset| Position::of(offset, text).to_string();
        assert_eq!(at(0), "1:1");
        assert_eq!(at(1), "1:2", "a line's end belongs to it");
        assert_eq!(at(2), "2:1");
        assert_eq!(at(text.find('c').unwrap()), "2:4");
        assert_eq!(at(text.len()), "4:1");
        assert_eq!(at(text.len() + 5), "4:1");
    }

    #[test]
    fn a_name_is_quoted_and_what_may_be_a_secret_is_not() {
        for name in ["payouts", "www-data", "svc-payouts2", "systemd-network", "nobody", "1000"] {
            assert!(quotable(name), "{name}");
        }
        for secret in [
            "550e8400-e29b-41d4-a716-446655440000",
            "thKu2DsAc0TMdBkEpB7BnR",
            "s3cr3t",
            "SECRET",
            "qwertyuiopasdfghj",
            "dead beef",
            "12345",
            "cafe0123babe",
            "geheim!",
        ] {
            assert!(!quotable(secret), "{secret}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_strange_word_is_not() {
        let known = ["request_timeout", "connect_timeout", "proxy", "api"];
        assert_eq!(nearest("reqest_timeout", known), Some("request_timeout"));
        assert_eq!(nearest("request-timeout", known), Some("request_timeout"));
        assert_eq!(nearest("Proxy", known), Some("proxy"));
        assert_eq!(nearest("pasword", known), None);
        assert_eq!(nearest("", known), None);
    }
}
