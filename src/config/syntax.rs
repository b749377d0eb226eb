//! Syntax errors of TOML, said in our words.
//!
//! The parser's own `Display` prints the line that is wrong, and a line that is wrong is where a secret was pasted. So
//! nothing of its text goes through: it only chooses among the sentences below.

use std::path::Path;

use toml::de::DeTable;

use super::errors::{ConfigErrors, Findings, Position};

/// What to say where the parser's message has one of these words. The first that fits is said.
const SENTENCES: [(&str, &str); 14] = [
    ("duplicate key", "this key or section stands twice: keep one"),
    ("cannot extend", "this section's name is a value elsewhere: a name is one or the other"),
    ("leading zero", "a number doesn't begin with 0; a file mode is text, such as \"0666\""),
    ("must be quoted", "here belongs a number, a list in brackets, or text in quotes"),
    ("quote", "text stands between quotes that end on the same line"),
    ("basic string", "text stands between quotes that end on the same line"),
    ("literal string", "text stands between quotes that end on the same line"),
    ("escape", "write a backslash in text as \\\\, or the text between single quotes"),
    ("unicode", "write a backslash in text as \\\\, or the text between single quotes"),
    ("unclosed", "a bracket is opened and not closed"),
    ("recurs", "this is nested too deep"),
    ("array", "a list is written as [\"a\", \"b\"]"),
    ("comment", "a comment has a character that can't be shown"),
    ("key", "write name = value, one to a line, under a [section]"),
];

/// What to say of everything else.
const ANYTHING: &str =
    "this isn't TOML: a line is a [section], a name = value (text in quotes), or a comment after #";

/// Parses a file. If it isn't TOML, all places are reported, one to a line: the rest of a line that is broken isn't
/// worth a guess.
pub(super) fn parse<'t>(text: &'t str, file: &Path) -> Result<DeTable<'t>, ConfigErrors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table.into_inner());
    }
    let mut broken: Vec<_> = errors
        .iter()
        .map(|error| (error.span().map_or(text.len(), |span| span.start), error.message()))
        .collect();
    broken.sort_by_key(|(offset, _)| *offset);
    broken.dedup_by_key(|(offset, _)| Position::of(*offset, text).line);
    let findings = Findings::about(text);
    for (offset, message) in broken {
        let sentence = SENTENCES.iter().find(|(word, _)| message.contains(word));
        findings.wrong(offset, sentence.map_or(ANYTHING, |(_, sentence)| sentence));
    }
    Err(findings.fail(file))
}
