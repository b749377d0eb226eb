//! What makes a callback unreadable: said all at once, each with its place.

use std::fmt::Display;

use super::json::{Sort, Source, Text};

/// The most that one answer says. A body of a few hundred kilobytes has room for many thousand mistakes, and an error
/// travels in headers.
pub const MAX_VIOLATIONS: usize = 16;

pub(super) const MISSING: &str = "is missing";
pub(super) const REPEATED: &str = "stands there more than once";

/// Something that keeps a callback from being read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Where, such as `included[1].attributes.status`; `callback` for the body as a whole.
    pub field: String,
    /// What is wrong there, as the end of a sentence that begins with the field. Shows no values.
    pub description: String,
}

/// The field that stands for the whole body.
const WHOLE: &str = "callback";

/// The first [`MAX_VIOLATIONS`] violations, and how many more there are.
#[derive(Default)]
pub(super) struct Violations {
    said: Vec<Violation>,
    unsaid: usize,
}

impl Violations {
    /// One that concerns the body as a whole.
    pub(super) fn of_the_whole(description: String) -> Vec<Violation> {
        vec![Violation { field: WHOLE.to_owned(), description }]
    }

    /// What nobody will read is not even written.
    pub(super) fn add(&mut self, field: impl Display, description: impl Display) {
        if self.said.len() < MAX_VIOLATIONS {
            self.said.push(Violation { field: field.to_string(), description: description.to_string() });
        } else {
            self.unsaid += 1;
        }
    }

    pub(super) fn append(&mut self, others: Self) {
        for Violation { field, description } in others.said {
            self.add(field, description);
        }
        self.unsaid += others.unsaid;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// All of them. Where there are too many, the last place says how many are left out.
    pub(super) fn into_vec(mut self) -> Vec<Violation> {
        if self.unsaid > 0 {
            self.said.truncate(MAX_VIOLATIONS - 1);
            let description = format!("has {} more such mistakes", self.unsaid + 1);
            self.said.push(Violation { field: WHOLE.to_owned(), description });
        }
        self.said
    }
}

/// The text that stands there, or what is wrong with what does.
pub(super) fn text(source: Source<'_>) -> Result<Text<'_>, String> {
    Text::of(source).ok_or_else(|| match Sort::of(source) {
        Sort::String => "has one half of a surrogate pair, which is no character".to_owned(),
        other => format!("must be a string, is {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_violations_end_with_their_number() {
        let mut all = Violations::default();
        for index in 0..MAX_VIOLATIONS {
            all.add(format!("included[{index}]"), "is wrong");
        }
        let mut more = Violations::default();
        for index in 0..100 {
            more.add(format!("more[{index}]"), "is wrong");
        }
        all.append(more);
        let said = all.into_vec();
        assert_eq!(said.len(), MAX_VIOLATIONS);
        let last = said.last().unwrap();
        assert_eq!(
            (last.field.as_str(), last.description.as_str()),
            ("callback", "has 101 more such mistakes")
        );
    }

    #[test]
    fn as_many_as_there_is_room_for_are_all_said() {
        let mut all = Violations::default();
        for index in 0..MAX_VIOLATIONS {
            all.add(format!("included[{index}]"), "is wrong");
        }
        assert!(all.into_vec().iter().all(|violation| violation.description == "is wrong"));
    }
}
