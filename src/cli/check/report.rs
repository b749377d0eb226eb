//! What was found, in sections.

use crate::cli::{
    layout::{Cell, Table},
    output::{Look, Tone},
};

/// How a finding is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Ok,
    /// Good to know, and nothing to do about it.
    Note,
    /// It works, and may not be what was meant.
    Warning,
    /// The broker would not start, or not work.
    Error,
}

impl Level {
    fn cell(self) -> Cell {
        match self {
            Self::Ok => Cell::toned("ok", Tone::Good),
            Self::Note => Cell::from("note"),
            Self::Warning => Cell::toned("warning", Tone::Warning),
            Self::Error => Cell::toned("error", Tone::Bad),
        }
    }
}

/// A list of findings, under headings.
#[derive(Default)]
pub(super) struct Report {
    sections: Vec<Section>,
}

struct Section {
    heading: &'static str,
    findings: Vec<(Level, String)>,
    table: Table,
}

impl Report {
    /// What is found from now on stands under this heading.
    pub(super) fn section(&mut self, heading: &'static str) {
        self.sections.push(Section { heading, findings: Vec::new(), table: Table::default() });
    }

    pub(super) fn ok(&mut self, finding: impl Into<String>) {
        self.add(Level::Ok, finding.into());
    }

    pub(super) fn note(&mut self, finding: impl Into<String>) {
        self.add(Level::Note, finding.into());
    }

    pub(super) fn warning(&mut self, finding: impl Into<String>) {
        self.add(Level::Warning, finding.into());
    }

    pub(super) fn error(&mut self, finding: impl Into<String>) {
        self.add(Level::Error, finding.into());
    }

    /// An error for each line of a list of them.
    pub(super) fn errors(&mut self, list: &impl ToString) {
        for line in list.to_string().lines() {
            self.error(line);
        }
    }

    /// A row of the section's table, which stands below its findings.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        if let Some(section) = self.sections.last_mut() {
            section.table.row(cells);
        }
    }

    fn add(&mut self, level: Level, finding: String) {
        if let Some(section) = self.sections.last_mut() {
            section.findings.push((level, finding));
        }
    }

    fn count(&self, level: Level) -> usize {
        self.sections
            .iter()
            .flat_map(|section| &section.findings)
            .filter(|(found, _)| *found == level)
            .count()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.count(Level::Error) > 0
    }

    pub(super) fn render(&self, look: Look) -> String {
        let mut text = String::new();
        for section in &self.sections {
            text.push_str(&look.paint(Tone::Strong, section.heading));
            text.push('\n');
            let mut findings = Table::default();
            for (level, finding) in &section.findings {
                findings.row([level.cell(), finding.as_str().into()]);
            }
            text.push_str(&findings.render(2, look));
            text.push_str(&section.table.render(2, look));
            text.push('\n');
        }
        text.push_str(&self.verdict(look));
        text
    }

    fn verdict(&self, look: Look) -> String {
        let counted = |count: usize, word: &str| match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        };
        let errors = counted(self.count(Level::Error), "error");
        let warnings = counted(self.count(Level::Warning), "warning");
        let result = match errors {
            Some(errors) => look.paint(Tone::Bad, &errors),
            None => look.paint(Tone::Good, "ok"),
        };
        let warnings = warnings.map(|warnings| format!(", {warnings}")).unwrap_or_default();
        format!("{result}{warnings}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_its_verdict() {
        let mut report = Report::default();
        report.section("State");
        report.ok("all there");
        report.row(["a".into(), "b".into()]);
        assert_eq!(report.render(Look::PLAIN), "State\n  ok  all there\n  a  b\n\nok\n");
        assert!(!report.has_errors());

        report.section("Sockets");
        report.warning("odd");
        report.note("so it is");
        report.errors(&"first\nsecond");
        let text = report.render(Look::PLAIN);
        assert!(text.ends_with("  warning  odd\n  note     so it is\n  error    first\n  error    second\n\n2 errors, 1 warning\n"), "{text}");
        assert!(report.has_errors());
    }
}
