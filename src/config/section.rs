//! Reading typed values out of parsed TOML, with all mistakes collected.
//!
//! A [`Section`] checks its keys against [`KEYS`] when it is opened. Its getters take a key's type, range and default
//! from the same table; where a value is wrong they report it and return a value that would be right, so that the
//! rest is looked at too. Whether anything was reported is for [`Findings::conclude`] to say.

use std::time::Duration;

use jiff::Timestamp;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    errors::{Findings, nearest},
    keys::{KEYS, Key, Kind, LATER, LISTS, Unset},
    values::{parse_duration, parse_size, show_size},
};

/// A section of the file, or the lack of one.
pub(super) struct Section<'a> {
    /// Its name, with dots; nothing for the root.
    path: &'static str,
    table: Option<&'a DeTable<'a>>,
    /// Where it begins. A section that isn't there would stand where the one around it begins.
    offset: usize,
    findings: &'a Findings<'a>,
}

/// A value in the file.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) key: &'static Key,
    pub(super) offset: usize,
    found: &'a DeValue<'a>,
    findings: &'a Findings<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a DeTable<'a>, findings: &'a Findings<'a>) -> Self {
        Self::open("", table, 0, findings)
    }

    fn open(path: &'static str, table: &'a DeTable<'a>, offset: usize, findings: &'a Findings<'a>) -> Self {
        let section = Self { path, table: Some(table), offset, findings };
        for key in table.keys() {
            section.check_key(key.get_ref(), key.span().start);
        }
        section
    }

    /// The section of this name under this one. If it isn't there, that is reported once, and not for each of its keys.
    pub(super) fn required_section(&self, path: &'static str) -> Self {
        if self.table.is_some() && self.find(path).is_none() {
            let required: Vec<_> = own_keys(path)
                .filter(|key| matches!(key.unset, Unset::Refused(_)))
                .map(|key| format!("{} = {}", key.split().1, key.unset.example()))
                .collect();
            self.wrong(format!(
                "the section [{path}] is missing; it needs at least {}",
                required.join(" and ")
            ));
        }
        self.section(path)
    }

    /// The section of this name under this one, there or not.
    pub(super) fn section(&self, path: &'static str) -> Self {
        let absent = Self { path, table: None, offset: self.offset, findings: self.findings };
        let Some(found) = self.find(path) else { return absent };
        let offset = found.span().start;
        match found.get_ref() {
            DeValue::Table(table) => Self::open(path, table, offset, self.findings),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                self.findings.wrong(offset, format!("[{path}] stands once, in single brackets"));
                absent
            }
            _ => {
                self.findings
                    .wrong(offset, format!("{path} is a section: write [{path}] and its keys below"));
                absent
            }
        }
    }

    /// The sections of this name in double brackets, in their order.
    pub(super) fn list(&self, path: &'static str) -> Vec<Self> {
        let Some(found) = self.find(path) else { return Vec::new() };
        match found.get_ref() {
            DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_table()) => items
                .iter()
                .filter_map(|item| Some((item.get_ref().as_table()?, item.span().start)))
                .map(|(table, offset)| Self::open(path, table, offset, self.findings))
                .collect(),
            _ => {
                let message =
                    format!("write [[{path}]] in double brackets, and its keys below: there may be several");
                self.findings.wrong(found.span().start, message);
                Vec::new()
            }
        }
    }

    /// Whether it stands in the file.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Where it begins.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Reports something about the section as a whole.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.findings.wrong(self.offset, message);
    }

    /// The value of this key, if it is written. If it must be and isn't, that is reported.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        let key = self.key(name);
        let table = self.table?;
        let Some(found) = table.get(name) else {
            if let Unset::Refused(example) = key.unset {
                self.wrong(format!("{} is missing; write for example {name} = {example}", key.path));
            }
            return None;
        };
        Some(Value { key, offset: found.span().start, found: found.get_ref(), findings: self.findings })
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<(&'a str, Value<'a>)> {
        let value = self.get(name)?;
        Some((value.text()?, value))
    }

    /// One of the words that the key may have, by its index in [`Kind::Choice`].
    pub(super) fn choice(&self, name: &str) -> Option<&'static str> {
        let value = self.get(name)?;
        let Kind::Choice(words) = value.key.kind else { mistaken(value.key) };
        let found = words.iter().find(|word| Some(**word) == value.found.as_str());
        if found.is_none() {
            value.wrong(format!("must be one of {}", quoted(words)));
        }
        found.copied()
    }

    /// A duration, or the default. `None` only for a key that has none.
    pub(super) fn optional_duration(&self, name: &str) -> Option<Duration> {
        let key = self.key(name);
        let Kind::Duration(range) = key.kind else { mistaken(key) };
        let known = |text: &str| parse_duration(text).unwrap_or_else(|_| mistaken(key));
        let default = || match key.unset {
            Unset::Is(text) => Some(known(text.trim_matches('"'))),
            _ => None,
        };
        let Some(value) = self.get(name) else { return default() };
        let Some(text) = value.found.as_str() else {
            value.wrong(format!(
                "is a duration: write a number and its unit in quotes, such as {}",
                key.unset.example()
            ));
            return default();
        };
        match parse_duration(text) {
            Ok(duration) if (known(range.from)..=known(range.to)).contains(&duration) => Some(duration),
            Ok(_) => {
                value.wrong(format!("must lie between {} and {}: {}", range.from, range.to, range.why));
                default()
            }
            Err(error) => {
                value.wrong(format!("can't be read: {error}"));
                default()
            }
        }
    }

    /// A duration of a key that has a default.
    pub(super) fn duration(&self, name: &str) -> Duration {
        self.optional_duration(name).unwrap_or_else(|| mistaken(self.key(name)))
    }

    /// A whole number of a key that has a default.
    pub(super) fn number(&self, name: &str) -> u64 {
        let key = self.key(name);
        let Kind::Number(range) = key.kind else { mistaken(key) };
        let default = key.unset.example().parse().unwrap_or_else(|_| mistaken(key));
        let Some(value) = self.get(name) else { return default };
        if !value.found.is_integer() {
            value.wrong(format!("is a whole number, without quotes, such as {default}"));
            return default;
        }
        value.whole().filter(|number| (range.from..=range.to).contains(number)).unwrap_or_else(|| {
            value.wrong(format!("must lie between {} and {}: {}", range.from, range.to, range.why));
            default
        })
    }

    /// A number of bytes of a key that has a default.
    pub(super) fn size(&self, name: &str) -> u64 {
        let key = self.key(name);
        let Kind::Size(range) = key.kind else { mistaken(key) };
        let default = parse_size(key.unset.example().trim_matches('"')).unwrap_or_else(|_| mistaken(key));
        let Some(value) = self.get(name) else { return default };
        let size = match value.found {
            DeValue::Integer(_) => Ok(value.whole().unwrap_or(u64::MAX)),
            other => parse_size(other.as_str().unwrap_or_default()),
        };
        match size {
            Ok(size) if (range.from..=range.to).contains(&size) => size,
            Ok(_) => {
                let (from, to) = (show_size(range.from), show_size(range.to));
                value.wrong(format!("must lie between {from} and {to}: {}", range.why));
                default
            }
            Err(error) => {
                value.wrong(format!("can't be read: {error}"));
                default
            }
        }
    }

    /// A fraction of a key that has a default.
    pub(super) fn fraction(&self, name: &str) -> f64 {
        let key = self.key(name);
        let Kind::Fraction(range) = key.kind else { mistaken(key) };
        let default = key.unset.example().parse().unwrap_or_else(|_| mistaken(key));
        let Some(value) = self.get(name) else { return default };
        let number = match value.found {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => {
                value.wrong(format!("is a number without quotes, such as {default}"));
                return default;
            }
        };
        match number {
            Some(number) if (range.from..=range.to).contains(&number) => number,
            _ => {
                value.wrong(format!("must lie between {} and {}: {}", range.from, range.to, range.why));
                default
            }
        }
    }

    /// A point in time.
    pub(super) fn instant(&self, name: &str) -> Option<Timestamp> {
        let value = self.get(name)?;
        let example = value.key.unset.example();
        match value.found {
            DeValue::Datetime(time)
                if time.date.is_some() && time.time.is_some() && time.offset.is_some() =>
            {
                let instant = time.to_string().parse().ok();
                if instant.is_none() {
                    value.wrong(format!("is no time that exists; write it as {example}"));
                }
                instant
            }
            DeValue::Datetime(_) => {
                value.wrong(format!(
                    "needs a date, a time and an offset (Z, or such as +02:00), as in {example}"
                ));
                None
            }
            _ => {
                value.wrong(format!("is a date and time without quotes, such as {example}"));
                None
            }
        }
    }

    fn find(&self, path: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let name = path.rsplit('.').next().unwrap_or(path);
        self.table?.get(name)
    }

    fn key(&self, name: &str) -> &'static Key {
        match own_keys(self.path).find(|key| key.split().1 == name) {
            Some(key) => key,
            None => unreachable!("{name} under [{}] is not in the table of keys", self.path),
        }
    }

    /// Reports a key that isn't known here. It is not repeated: it may be a secret in the wrong place.
    fn check_key(&self, name: &str, offset: usize) {
        let keys = own_keys(self.path).map(|key| key.split().1);
        let known: Vec<_> = keys.chain(own_sections(self.path)).collect();
        if known.contains(&name) {
            return;
        }
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let here = if self.path.is_empty() {
            "at the top of the file".to_owned()
        } else {
            format!("under {}", brackets(self.path))
        };
        let message = if let Some(later) = LATER.into_iter().find(|later| *later == path) {
            format!("{later} is not part of this version: take it out")
        } else if let Some(likely) = nearest(name, known.iter().copied()) {
            format!("there is no such key {here}; did you mean {likely}?")
        } else if let Some(elsewhere) = KEYS.iter().find(|key| key.split().1 == name) {
            format!("{name} doesn't belong {here} but under {}", brackets(elsewhere.split().0))
        } else {
            format!("there is no such key {here}; there are {}", known.join(", "))
        };
        self.findings.wrong(offset, message);
    }
}

impl<'a> Value<'a> {
    /// Reports something about it; `what` follows its key.
    pub(super) fn wrong(&self, what: impl AsRef<str>) {
        self.findings.wrong(self.offset, format!("{} {}", self.key.path, what.as_ref()));
    }

    /// Reports something about it that isn't wrong.
    pub(super) fn odd(&self, what: impl AsRef<str>) {
        self.findings.odd(self.offset, format!("{} {}", self.key.path, what.as_ref()));
    }

    fn text(&self) -> Option<&'a str> {
        let Kind::Text(sort) = self.key.kind else { mistaken(self.key) };
        let found = self.found.as_str().filter(|text| !text.is_empty());
        if found.is_none() {
            self.wrong(format!("is {sort} in quotes, such as {}", self.key.unset.example()));
        }
        found
    }

    /// The words of a list, each with its place.
    pub(super) fn words(&self) -> Vec<(&'a str, usize)> {
        let Kind::Words(sort) = self.key.kind else { mistaken(self.key) };
        let words: Option<Vec<_>> = self.found.as_array().and_then(|items| {
            items.iter().map(|item| Some((item.get_ref().as_str()?, item.span().start))).collect()
        });
        words.filter(|words| !words.is_empty()).unwrap_or_else(|| {
            self.wrong(format!("is a list of {sort} in brackets, such as {}", self.key.unset.example()));
            Vec::new()
        })
    }

    fn whole(&self) -> Option<u64> {
        let integer = self.found.as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

/// The keys right under a section.
pub(super) fn own_keys(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.split().0 == section)
}

/// The names of the sections right under a section.
fn own_sections(section: &str) -> impl Iterator<Item = &'static str> {
    let below = move |path: &'static str| match section {
        "" => Some(path),
        _ => path.strip_prefix(section)?.strip_prefix('.'),
    };
    let mut last = "";
    KEYS.iter().filter_map(move |key| below(key.path)?.split_once('.')).filter_map(move |(name, _)| {
        let new = name != last;
        last = name;
        new.then_some(name)
    })
}

/// A section's name as it is written in the file.
pub(super) fn brackets(section: &str) -> String {
    if LISTS.contains(&section) { format!("[[{section}]]") } else { format!("[{section}]") }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The table of keys says otherwise than the code that reads one: a mistake of ours that every test would meet.
fn mistaken(key: &Key) -> ! {
    unreachable!("the table of keys has another kind or default for {}", key.path)
}
