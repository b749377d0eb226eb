//! What holds whatever is sent.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{Draft, SECRET, judged, now, v2, v3};
use crate::sign::{SignKeys, Subject, Verdict, VerifyError, explain, verify};

fn verdict(body: impl AsRef<[u8]>) -> Option<Verdict> {
    judged(body).ok().map(|finding| finding.verdict)
}

/// Amounts of the currency that drafts have by default.
fn amounts() -> impl Strategy<Value = String> {
    "[0-9]{1,12}(\\.[0-9]{1,8})?"
}

prop_compose! {
    fn times()(seconds in 0_i64..4_000_000_000, micros in proptest::option::of(0_u32..1_000_000)) -> String {
        let time = Timestamp::new(seconds, 0).unwrap().to_string();
        match micros {
            None => time,
            Some(micros) => time.replace('Z', &format!(".{micros:06}Z")),
        }
    }
}

/// The values of a genuine callback's signed fields.
#[derive(Clone, Debug)]
struct Genuine {
    status: String,
    amount: String,
    tracking_id: String,
    time: String,
}

prop_compose! {
    fn genuine()(
        status in -3_i64..=2, amount in amounts(), tracking_id in ".{0,20}", time in times(),
    ) -> Genuine {
        Genuine {
            status: status.to_string(),
            amount: json!(amount).to_string(),
            tracking_id: json!(tracking_id).to_string(),
            time: json!(time).to_string(),
        }
    }
}

impl Genuine {
    fn draft(&self) -> Draft<'_> {
        let Self { status, amount, tracking_id, time } = self;
        Draft { tracking_id, status, amount, time, ..Draft::default() }
    }
}

/// Objects that a callback holds, as JSON pointers.
const OBJECTS: [&str; 12] = [
    "",
    "/data",
    "/data/attributes",
    "/data/attributes/destination",
    "/data/relationships",
    "/included/0",
    "/included/0/attributes",
    "/included/1",
    "/included/1/attributes",
    "/included/1/relationships",
    "/included/1/relationships/currency",
    "/meta",
];

/// Any value that is not deep.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("status|amount|time|sign|data|type|[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_signed_is_valid(genuine in genuine()) {
        prop_assert_eq!(verdict(genuine.draft().signed(SECRET)), Some(Verdict::Valid));
    }

    #[test]
    fn a_changed_field_is_never_valid(
        genuine in genuine(), other in genuine(), which in 0..4_u8,
    ) {
        let draft = genuine.draft();
        let changed = match which {
            0 => Draft { status: &other.status, ..draft },
            1 => Draft { amount: &other.amount, ..draft },
            2 => Draft { tracking_id: &other.tracking_id, ..draft },
            _ => Draft { time: &other.time, ..draft },
        };
        prop_assume!(changed.message() != draft.message());
        let finding = judged(changed.signed_for(SECRET, &draft.message()));
        prop_assert_eq!(finding.map(|it| it.verdict), Ok(Verdict::Invalid));
    }

    #[test]
    fn a_field_replaced_by_anything_is_valid_only_if_it_says_the_same(
        genuine in genuine(), value in values(), which in 0..4_u8,
    ) {
        let draft = genuine.draft();
        let value = value.to_string();
        let changed = match which {
            0 => Draft { status: &value, ..draft },
            1 => Draft { amount: &value, ..draft },
            2 => Draft { tracking_id: &value, ..draft },
            _ => Draft { time: &value, ..draft },
        };
        prop_assume!(changed.message() != draft.message());
        prop_assert_ne!(verdict(changed.signed_for(SECRET, &draft.message())), Some(Verdict::Valid));
    }

    #[test]
    fn digits_moved_into_the_amount_are_caught_by_its_decimals(
        digits in "[0-9]{8}", moved in "[0-9]{1,8}", rest in "[a-z]{0,8}",
    ) {
        let (whole, tracking_id) = (format!("\"1.{digits}\""), format!("\"{moved}{rest}\""));
        let draft = Draft { amount: &whole, tracking_id: &tracking_id, ..Draft::default() };
        prop_assert_eq!(verdict(draft.signed(SECRET)), Some(Verdict::Valid));
        let (longer, shorter) = (format!("\"1.{digits}{moved}\""), format!("\"{rest}\""));
        let forged = Draft { amount: &longer, tracking_id: &shorter, ..draft };
        prop_assert_eq!(forged.message(), draft.message());
        let finding = judged(forged.signed_for(SECRET, &draft.message())).unwrap();
        prop_assert_eq!(finding.verdict, Verdict::Invalid);
        prop_assert!(finding.reason.contains("decimals"), "{}", finding.reason);
    }

    #[test]
    fn characters_moved_between_the_tracking_id_and_the_time_are_caught(
        genuine in genuine(), length in 1..20_usize,
    ) {
        let draft = genuine.draft();
        let decoded = |source: &str| serde_json::from_str::<String>(source).unwrap();
        let (tracking_id, time) = (decoded(draft.tracking_id), decoded(draft.time));
        let (moved, rest) = time.split_at(length);
        let (longer, shorter) = (json!(format!("{tracking_id}{moved}")).to_string(), json!(rest).to_string());
        let forged = Draft { tracking_id: &longer, time: &shorter, ..draft };
        prop_assert_eq!(verdict(forged.signed_for(SECRET, &draft.message())), Some(Verdict::Invalid));
    }

    #[test]
    fn unrelated_members_anywhere_change_nothing(
        genuine in genuine(), object in proptest::sample::select(OBJECTS.as_slice()), value in values(), right in any::<bool>(),
    ) {
        let key: &[u8] = if right { SECRET } else { b"another secret" };
        let mut body: Value = serde_json::from_str(&genuine.draft().signed(key)).unwrap();
        let before = judged(body.to_string());
        body.pointer_mut(object).unwrap()["unrelated"] = value.clone();
        body["included"].as_array_mut().unwrap().push(json!({"type": "unrelated", "attributes": value}));
        prop_assert_eq!(judged(body.to_string()), before);
    }

    #[test]
    fn any_bytes_are_malformed_at_worst(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(matches!(judged(&body), Err(VerifyError::Malformed(_))));
        prop_assert!(explain(&body).is_err());
    }

    #[test]
    fn any_json_is_judged(value in values(), object in proptest::sample::select(OBJECTS.as_slice())) {
        let mut body: Value = serde_json::from_str(&Draft::default().signed(SECRET)).unwrap();
        *body.pointer_mut(object).unwrap() = value;
        let body = body.to_string();
        // Explaining and judging agree on what can be read, but for signed fields that are missing.
        match judged(&body) {
            Ok(_) => prop_assert!(explain(body.as_bytes()).is_ok()),
            Err(VerifyError::Malformed(violations)) => prop_assert!(!violations.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_damaged_callback_never_panics_and_is_valid_only_where_the_damage_is_not_signed(
        genuine in genuine(), at in any::<proptest::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = genuine.draft().signed(SECRET).into_bytes();
        let before = judged(&body).unwrap().callback.unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = explain(&body);
        if let Ok(finding) = judged(&body) && finding.verdict == Verdict::Valid {
            let after = finding.callback.unwrap();
            prop_assert_eq!(
                (after.status, after.amount, after.tracking_id, after.time),
                (before.status, before.amount, before.tracking_id, before.time)
            );
        }
    }

    #[test]
    fn any_token_response_and_any_message_are_judged(
        time in ".{0,40}", token in ".{0,40}", sign in "[0-9a-fA-F]{64}|.{0,70}", message in any::<Vec<u8>>(),
    ) {
        let keys = SignKeys::new(&v2(), Some((&v3(), Timestamp::MAX)));
        let subjects = [
            Subject::TokenResponse { time: &time, refresh_token: &token, sign: &sign },
            Subject::Message { message: &message, sign: &sign },
        ];
        for subject in subjects {
            prop_assert_eq!(verify(&keys, subject, None, now()).map(|it| it.verdict), Ok(Verdict::Invalid));
        }
    }
}
