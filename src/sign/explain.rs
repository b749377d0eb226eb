//! What a sign covers, for somebody who wonders why theirs is wrong. Needs no key, and says nothing about the sign but
//! whether there is one.

use super::{
    callback::{self, Callback, Kind},
    key::{NotASign, Sign},
    rules,
    verify::{SIGNED_FIELDS, VerifyError},
};

/// What of a callback its sign does not cover, and where it stands: anybody who can change the body on its way can
/// change these, and the sign stays right.
pub const NOT_COVERED: [(&str, &str); 6] = [
    ("type", "data.type"),
    ("id", "data.id"),
    ("currency", "included[] and data.relationships.currency"),
    ("wallet", "data.relationships.wallet"),
    ("address", "data.attributes.address and data.attributes.destination"),
    ("txid", "included[].attributes.txid"),
];

/// How the message of a callback is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// `data.type`
    pub kind: Kind,
    /// `data.id`, printable.
    pub id: String,
    /// The fields that the message is made of, in their order.
    pub fields: Vec<ExplainedField>,
    /// The message, printable. `None` where a field of it is missing, as in a callback without a transfer.
    pub message: Option<String>,
    /// What stands in `meta.sign`.
    pub sign: ExplainedSign,
    /// The rules that make the callback invalid even where the sign is right. Only where there is a message.
    pub broken_rules: Vec<String>,
}

/// A field of the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExplainedField {
    /// One of [`SIGNED_FIELDS`].
    pub name: &'static str,
    /// Where it was read, such as `included[1].attributes.status`.
    pub path: String,
    /// What stands there, decoded, then made printable. `None`: it is missing.
    pub value: Option<String>,
}

/// What stands where the sign belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExplainedSign {
    /// Nothing.
    Missing,
    /// Something that can't be a sign.
    Unfit(NotASign),
    /// Something that could be the right sign.
    Present,
}

/// Explains the body of a callback. The only error is [`VerifyError::Malformed`].
pub fn explain(body: &[u8]) -> Result<Explanation, VerifyError> {
    let callback = callback::read(body).map_err(VerifyError::Malformed)?;
    let fields = callback.signed_fields();
    let [status, amount, tracking_id, time] = SIGNED_FIELDS;
    let transfer = callback.transfer.as_ref();
    let in_transfer = |name: &str| match transfer {
        Some(transfer) => format!("included[{}].attributes.{name}", transfer.index),
        None => format!("included[].attributes.{name}"),
    };
    Ok(Explanation {
        kind: callback.kind,
        id: printable(&callback.id),
        fields: vec![
            field(status, in_transfer(status), transfer.and_then(|transfer| transfer.status)),
            field(amount, in_transfer(amount), transfer.and_then(|transfer| transfer.amount.as_deref())),
            field(
                tracking_id,
                "data.attributes.tracking_id".to_owned(),
                callback.tracking_id.as_ref().map(|text| &*text.decoded),
            ),
            field(time, "meta.time".to_owned(), callback.time.as_deref()),
        ],
        message: fields.map(|fields| fields.parts().map(printable).concat()),
        sign: sign(&callback),
        broken_rules: fields
            .and_then(|fields| rules::judge(&fields).err())
            .map(|broken| broken.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    })
}

fn field(name: &'static str, path: String, value: Option<&str>) -> ExplainedField {
    ExplainedField { name, path, value: value.map(printable) }
}

fn sign(callback: &Callback<'_>) -> ExplainedSign {
    match callback.sign.as_deref().map(Sign::parse) {
        None => ExplainedSign::Missing,
        Some(Err(not_a_sign)) => ExplainedSign::Unfit(not_a_sign),
        Some(Ok(_)) => ExplainedSign::Present,
    }
}

/// The text with everything escaped that a terminal would obey, hide or turn round instead of showing it; a backslash
/// is doubled, so that no text looks like another.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::tests::support::{Draft, SECRET};

    #[test]
    fn an_explanation_says_what_is_read_where_and_what_message_it_makes() {
        let body = Draft { tracking_id: r#""caf\u00e9\n""#, ..Draft::default() }.signed(SECRET);
        let explanation = explain(body.as_bytes()).unwrap();
        let fields: Vec<_> = explanation
            .fields
            .iter()
            .map(|field| (field.name, field.path.as_str(), field.value.as_deref().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                ("status", "included[1].attributes.status", "2"),
                ("amount", "included[1].attributes.amount", "0.30000000"),
                ("tracking_id", "data.attributes.tracking_id", r"café\n"),
                ("time", "meta.time", "2026-11-21T12:00:00.000001Z"),
            ]
        );
        assert_eq!(explanation.message.as_deref(), Some(r"20.30000000café\n2026-11-21T12:00:00.000001Z"));
        assert_eq!(explanation.sign, ExplainedSign::Present);
        assert_eq!((explanation.kind, explanation.id.as_str()), (Kind::Deposit, "11203"));
        assert!(explanation.broken_rules.is_empty());
    }

    #[test]
    fn an_explanation_works_without_a_sign_and_without_a_transfer() {
        let unsigned = explain(Draft::default().with_sign("null").as_bytes()).unwrap();
        assert_eq!(unsigned.sign, ExplainedSign::Missing);
        assert!(unsigned.message.is_some());

        let short = explain(Draft::default().with_sign("\"ab\"").as_bytes()).unwrap();
        assert_eq!(short.sign, ExplainedSign::Unfit(NotASign::WrongLength(2)));

        let no_transfer = Draft { transfer: "", ..Draft::default() }.with_sign("null");
        let no_transfer = explain(no_transfer.as_bytes()).unwrap();
        assert_eq!(no_transfer.message, None);
        assert_eq!(no_transfer.fields[0].value, None);
        assert_eq!(no_transfer.fields[2].value.as_deref(), Some("order-77"));
    }

    #[test]
    fn an_explanation_names_broken_rules_and_what_cannot_be_read() {
        let body = Draft { amount: r#""0.300000000""#, ..Draft::default() }.signed(SECRET);
        assert_eq!(explain(body.as_bytes()).unwrap().broken_rules.len(), 1);
        assert!(matches!(explain(b"{}"), Err(VerifyError::Malformed(_))));
    }

    #[test]
    fn nothing_in_an_explanation_can_move_the_cursor() {
        let raw = "a\u{1b}[2Jb\r\u{202e}c\\u{1b}\"d\u{0}é№";
        assert_eq!(printable(raw), r#"a\u{1b}[2Jb\r\u{202e}c\\u{1b}"d\0é№"#);
    }
}
