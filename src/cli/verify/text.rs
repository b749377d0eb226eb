//! Findings and explanations for people. Everything that the callback's sender wrote is made printable first.

use std::fmt::Write;

use crate::{
    cli::{
        layout::{Cell, Table},
        output::{Look, Tone},
    },
    grpc::proto::{Callback, KeyGeneration, Verdict, VerifySignResponse},
    sign::{ExplainedSign, Explanation, NOT_COVERED, Violation, printable},
};

/// What the broker found.
pub(super) fn finding(found: &VerifySignResponse, look: Look) -> String {
    let verdict = found.verdict();
    let name = verdict.as_str_name();
    let tone = match verdict {
        Verdict::Valid => Tone::Good,
        Verdict::Unsigned | Verdict::Stale => Tone::Warning,
        Verdict::Invalid | Verdict::Unspecified => Tone::Bad,
    };
    let name = look.paint(tone, name.strip_prefix("VERDICT_").unwrap_or(name));
    let mut text = format!("{name}: {}\n", printable(&found.reason));
    if found.key_generation() == KeyGeneration::Previous {
        text.push_str(&look.paint(Tone::Warning, "The key is the previous one."));
        text.push('\n');
    }
    if let Some(callback) = &found.callback {
        text.push_str(&fields(callback).render(2, look));
    }
    text
}

fn fields(callback: &Callback) -> Table {
    let status = callback.status.map(|status| status.to_string()).unwrap_or_default();
    let all = [
        ("kind", callback.kind.as_str()),
        ("id", &callback.id),
        ("status", &status),
        ("amount", &callback.amount),
        ("tracking_id", &callback.tracking_id),
        ("time", &callback.time),
    ];
    let mut table = Table::default();
    for (name, value) in all {
        let signed = callback.authenticated_fields.iter().any(|field| field == name);
        let cover =
            if signed { Cell::toned("signed", Tone::Good) } else { Cell::toned("not signed", Tone::Warning) };
        table.row([name.into(), cover, printable(value).into()]);
    }
    table
}

/// How the message was built, as far as it can be told without a key.
pub(super) fn explanation(explanation: &Explanation, look: Look) -> String {
    let mut text = heading(&format!("The message of this {}", explanation.kind.as_str()), look);
    let mut fields = Table::default();
    for field in &explanation.fields {
        let value = match &field.value {
            Some(value) => Cell::from(format!("\"{value}\"")),
            None => Cell::toned("missing", Tone::Warning),
        };
        fields.row([field.name.into(), Cell::toned(field.path.as_str(), Tone::Faint), value]);
    }
    text.push_str(&fields.render(2, look));
    // Writing to a String can't fail.
    let _ = match &explanation.message {
        Some(message) => writeln!(text, "  Together, without anything between: \"{message}\""),
        None => writeln!(text, "  There is none: not all of its fields are there."),
    };
    let sign = match explanation.sign {
        ExplainedSign::Missing => "There is no meta.sign.".to_owned(),
        ExplainedSign::Unfit(why) => format!("What stands in meta.sign can't be a sign: {why}."),
        ExplainedSign::Present => "meta.sign has the form of a sign.".to_owned(),
    };
    let _ = writeln!(text, "  {sign}");
    if !explanation.broken_rules.is_empty() {
        text.push_str(&heading("INVALID even where the sign is right", look));
        for rule in &explanation.broken_rules {
            let _ = writeln!(text, "  {}", printable(rule));
        }
    }
    text.push_str(&heading("What the sign does not cover", look));
    let mut uncovered = Table::default();
    for (name, path) in NOT_COVERED {
        uncovered.row([name.into(), Cell::toned(path, Tone::Faint)]);
    }
    text.push_str(&uncovered.render(2, look));
    text
}

/// A finding that stands below an explanation.
pub(super) fn beside_explanation(finding: &str, look: Look) -> String {
    format!("{}{finding}", heading("What the broker says", look))
}

/// Why a body can't be explained.
pub(super) fn unreadable(violations: &[Violation], look: Look) -> String {
    let mut text = heading("This is no callback that can be read", look);
    for Violation { field, description } in violations {
        let _ = writeln!(text, "  {} {}", printable(field), printable(description));
    }
    text
}

fn heading(text: &str, look: Look) -> String {
    format!("{}\n", look.paint(Tone::Strong, &format!("{text}:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"data":{"type":"deposit","id":"11203","attributes":{"tracking_id":"a\u001b[2J\n"}},
        "included":[{"type":"transfer","attributes":{"status":2,"amount":"0.3"}}],
        "meta":{"time":"2026-11-21T12:00:00Z","sign":"abc"}}"#;

    #[test]
    fn an_explanation_tells_fields_message_sign_and_what_is_open() {
        let explained = crate::sign::explain(BODY.as_bytes()).unwrap();
        let expected = r#"The message of this deposit:
  status       included[0].attributes.status  "2"
  amount       included[0].attributes.amount  "0.3"
  tracking_id  data.attributes.tracking_id    "a\u{1b}[2J\n"
  time         meta.time                      "2026-11-21T12:00:00Z"
  Together, without anything between: "20.3a\u{1b}[2J\n2026-11-21T12:00:00Z"
"#;
        let text = explanation(&explained, Look::PLAIN);
        assert!(text.starts_with(expected), "{text}");
        for said in ["can't be a sign", "What the sign does not cover:", "  currency  included[]"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_finding_marks_each_field_as_signed_or_not() {
        let found = VerifySignResponse {
            verdict: Verdict::Valid.into(),
            reason: "the sign is right under the current key".to_owned(),
            key_generation: KeyGeneration::Current.into(),
            callback: Some(Callback {
                kind: "deposit".to_owned(),
                id: "11\u{1b}203".to_owned(),
                status: Some(-2),
                amount: "0.30".to_owned(),
                tracking_id: "order-77".to_owned(),
                time: "2026-11-21T12:00:00Z".to_owned(),
                authenticated_fields: ["status", "amount", "tracking_id", "time"].map(str::to_owned).into(),
            }),
        };
        let expected = r"VALID: the sign is right under the current key
  kind         not signed  deposit
  id           not signed  11\u{1b}203
  status       signed      -2
  amount       signed      0.30
  tracking_id  signed      order-77
  time         signed      2026-11-21T12:00:00Z
";
        assert_eq!(finding(&found, Look::PLAIN), expected);
    }

    #[test]
    fn a_previous_key_is_pointed_out() {
        let found = VerifySignResponse {
            verdict: Verdict::Valid.into(),
            key_generation: KeyGeneration::Previous.into(),
            ..VerifySignResponse::default()
        };
        assert!(finding(&found, Look::PLAIN).contains("previous one"));
    }

    #[test]
    fn a_body_that_can_not_be_read_is_told_field_by_field() {
        let Err(crate::sign::VerifyError::Malformed(violations)) = crate::sign::explain(b"{}") else {
            panic!("an empty object is a callback");
        };
        let text = unreadable(&violations, Look::PLAIN);
        assert!(text.lines().count() >= 2 && text.contains("  data"), "{text}");
    }
}
