//! How results are set: tables, spans, times. Everything here is text in, text out.

use std::{fmt::Write, time::Duration};

use jiff::{Timestamp, Unit};
use serde::Serialize;

use super::output::{Look, Tone};

/// Rows whose columns stand under each other. A cell may be painted: its width is that of the text alone.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// A text with a tone, or without.
#[derive(Clone)]
pub(super) struct Cell {
    text: String,
    tone: Option<Tone>,
    right: bool,
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { tone: Some(tone), ..Self::from(text.into()) }
    }

    /// A number.
    pub(super) fn number(number: u64) -> Self {
        Self { right: true, ..Self::from(number.to_string()) }
    }

    pub(super) fn in_tone(self, tone: Tone) -> Self {
        Self { tone: Some(tone), ..self }
    }

    /// A heading above numbers.
    pub(super) fn at_the_right(self) -> Self {
        Self { right: true, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: None, right: false }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Table {
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The rows, each indented by `indent` spaces, two spaces between the columns and none at the end.
    pub(super) fn render(&self, indent: usize, look: Look) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<_> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max())
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let filled = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
            text.push_str(&" ".repeat(if filled == 0 { 0 } else { indent }));
            for (column, cell) in row[..filled].iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.width());
                let painted = match cell.tone {
                    Some(tone) => look.paint(tone, &cell.text),
                    None => cell.text.clone(),
                };
                let last = column + 1 == filled;
                match (cell.right, last) {
                    (true, _) => text.extend([padding, painted]),
                    (false, true) => text.push_str(&painted),
                    (false, false) => text.extend([painted, padding]),
                }
                text.push_str(if last { "" } else { "  " });
            }
            text.push('\n');
        }
        text
    }
}

/// A span as people say it, in its two largest units: `3d 4h`, `59m 59s`, `8s`, `230ms`.
pub(super) fn span(of: Duration) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let seconds = of.as_secs();
    if seconds == 0 {
        return if of.is_zero() { "0s".to_owned() } else { format!("{}ms", of.as_millis().max(1)) };
    }
    let largest = UNITS.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (name, unit) = UNITS[largest];
    let mut text = format!("{}{name}", seconds / unit);
    if let Some((name, smaller)) = UNITS.get(largest + 1)
        && let rest @ 1.. = seconds % unit / smaller
    {
        // Writing to a String can't fail.
        let _ = write!(text, " {rest}{name}");
    }
    text
}

/// How far from `now` a moment is: `in 8s`, `3m 2s ago`, `now`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    // To the nearest second, so that what was measured a moment apart does not show it.
    let distance = distance.round(Unit::Second).unwrap_or(distance);
    let of = span(distance.unsigned_abs());
    match distance.signum() {
        0 => "now".to_owned(),
        1.. => format!("in {of}"),
        _ => format!("{of} ago"),
    }
}

/// A moment to the second, in UTC: `2026-11-21 12:00:00Z`.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A JSON object on a line of its own.
pub(super) fn json_line(object: &impl Serialize) -> String {
    // Fails only for maps whose keys are no strings and for what says itself that it can't be written; ours are neither.
    let text = serde_json::to_string(object).unwrap_or_default();
    format!("{text}\n")
}

/// `used` of `all`, as a bar.
pub(super) fn bar(used: u32, all: u32, width: u32) -> String {
    let filled = (u64::from(used.min(all)) * u64::from(width)).div_ceil(u64::from(all.max(1)));
    (0..u64::from(width)).map(|place| if place < filled { '█' } else { '░' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        for (milliseconds, expected) in [
            (0, "0s"),
            (230, "230ms"),
            (8_000, "8s"),
            (60_000, "1m"),
            (3_599_999, "59m 59s"),
            (3_600_000, "1h"),
            (3_601_000, "1h"),
            (97_200_000, "1d 3h"),
        ] {
            assert_eq!(span(Duration::from_millis(milliseconds)), expected);
        }
        assert_eq!(span(Duration::from_nanos(1)), "1ms");
    }

    #[test]
    fn a_moment_is_told_from_now() {
        let now = Timestamp::from_second(1_000).unwrap();
        let at = |milliseconds| relative(Timestamp::from_millisecond(milliseconds).unwrap(), now);
        assert_eq!(at(1_008_000), "in 8s");
        assert_eq!(at(1_000_400), "now");
        assert_eq!(at(999_600), "now");
        assert_eq!(at(818_000), "3m 2s ago");
    }

    #[test]
    fn columns_stand_under_each_other_whatever_their_colour() {
        let mut table = Table::default();
        table.row(["CALLER".into(), Cell::from("CALLS").at_the_right(), "TOKEN".into()]);
        table.row([Cell::toned("hooks", Tone::Bad), Cell::number(7), "".into()]);
        table.row(["".into(), "".into(), "".into()]);
        let plain = "  CALLER  CALLS  TOKEN\n  hooks       7\n\n";
        assert_eq!(table.render(2, Look::PLAIN), plain);
        let painted = table.render(2, Look { terminal: true, colour: true });
        assert_eq!(painted.replace("\u{1b}[1m\u{1b}[31mhooks\u{1b}[0m", "hooks"), plain);
    }

    #[test]
    fn a_bar_is_empty_only_for_nothing_and_full_only_for_all() {
        assert_eq!(bar(0, 15, 4), "░░░░");
        assert_eq!(bar(1, 15, 4), "█░░░");
        assert_eq!(bar(15, 15, 4), "████");
        assert_eq!(bar(20, 15, 4), "████");
        assert_eq!(bar(0, 0, 4), "░░░░");
    }
}
