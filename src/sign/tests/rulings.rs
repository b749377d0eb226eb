//! The rulings on what is valid, invalid, unsigned, stale or unreadable.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::support::{CURRENCY, Draft, SECRET, TRANSFER, hex_sign, judged, now, v2, v3};
use crate::{
    credentials::Credentials,
    sign::{
        CallbackFacts, Finding, Generation, Kind, MAX_CALLBACK, MAX_VIOLATIONS, SIGNED_FIELDS, SignKeys,
        Subject, Verdict, VerifyError, verify,
    },
};

#[track_caller]
fn assert_invalid(body: &str, because: &str) {
    let finding = judged(body).unwrap();
    assert_eq!(finding.verdict, Verdict::Invalid, "{finding:?}");
    assert!(finding.reason.contains(because), "{:?} does not say {because:?}", finding.reason);
    assert_eq!((finding.generation, finding.callback), (None, None));
}

#[track_caller]
fn assert_malformed(body: impl AsRef<[u8]>, expected: &[(&str, &str)]) {
    let Err(VerifyError::Malformed(violations)) = judged(body) else { panic!("it was read") };
    let found: Vec<_> = violations.iter().map(|it| (it.field.as_str(), it.description.as_str())).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((field, description), (expected_field, expected_words)) in found.iter().zip(expected) {
        assert_eq!(field, expected_field, "{found:?}");
        assert!(description.contains(expected_words), "{description:?} does not say {expected_words:?}");
    }
}

/// The default draft, signed, with `part` replaced.
fn with(part: &str, replacement: &str) -> String {
    let body = Draft::default().signed(SECRET);
    assert_eq!(body.matches(part).count(), 1, "{part} in {body}");
    body.replacen(part, replacement, 1)
}

#[test]
fn right_sign_and_right_shape_is_valid_with_what_it_says() {
    let finding = judged(Draft::default().signed(SECRET)).unwrap();
    let facts = CallbackFacts {
        kind: Kind::Deposit,
        id: "11203".to_owned(),
        status: Some(2),
        amount: "0.30000000".to_owned(),
        tracking_id: "order-77".to_owned(),
        time: "2026-11-21T12:00:00.000001Z".to_owned(),
        authenticated_fields: &SIGNED_FIELDS,
    };
    assert_eq!(
        finding,
        Finding {
            verdict: Verdict::Valid,
            reason: "the sign is right under the current key".to_owned(),
            generation: Some(Generation::Current),
            callback: Some(facts),
        }
    );
}

#[test]
fn every_genuine_variety_is_valid() {
    let genuine = Draft::default();
    let varieties = [
        ("a payout", Draft { kind: r#""payout""#, ..genuine }),
        ("canceled", Draft { status: "-3", ..genuine }),
        ("created", Draft { status: "0", ..genuine }),
        ("no tracking id", Draft { tracking_id: r#""""#, ..genuine }),
        ("escapes", Draft { tracking_id: r#""caf\u00e9 \ud83d\ude00 \/ \u0000""#, ..genuine }),
        ("an escaped amount", Draft { amount: r#""\u0030.5""#, ..genuine }),
        ("no decimals", Draft { amount: r#""12""#, ..genuine }),
        ("fewer decimals than the currency", Draft { amount: r#""0.3""#, ..genuine }),
        ("a time without a fraction", Draft { time: r#""2026-11-21T12:00:00Z""#, ..genuine }),
        ("a time elsewhere", Draft { time: r#""2026-11-21T15:00:00.5+03:00""#, ..genuine }),
        ("a type in escapes", Draft { kind: r#""\u0064eposit""#, ..genuine }),
        ("no currency, so many decimals", Draft { amount: r#""0.123456789""#, currency: "", ..genuine }),
    ];
    for (what, draft) in varieties {
        let finding = judged(draft.signed(SECRET)).unwrap();
        assert_eq!(finding.verdict, Verdict::Valid, "{what}: {}", finding.reason);
    }
}

#[test]
fn white_space_and_the_order_of_members_do_not_matter() {
    let mut value: serde_json::Value = serde_json::from_str(&Draft::default().signed(SECRET)).unwrap();
    let included = value["included"].as_array_mut().unwrap();
    included.reverse();
    let body = format!("\r\n\t {value:#}\n");
    assert_eq!(judged(body).unwrap().verdict, Verdict::Valid);
}

#[test]
fn an_undocumented_status_is_valid_and_the_reason_says_so() {
    let finding = judged(Draft { status: "21", ..Draft::default() }.signed(SECRET)).unwrap();
    assert_eq!(finding.verdict, Verdict::Valid);
    assert!(finding.reason.contains("status 21 is none that the API documents"), "{}", finding.reason);
}

#[test]
fn a_sign_of_either_case_is_right() {
    let sign = hex_sign(SECRET, Draft::default().message().as_bytes()).to_uppercase();
    assert_eq!(judged(Draft::default().with_sign(&format!("\"{sign}\""))).unwrap().verdict, Verdict::Valid);
}

#[test]
fn a_wrong_short_empty_non_hex_or_missing_sign_is_invalid() {
    let draft = Draft::default();
    let right = hex_sign(SECRET, draft.message().as_bytes());
    assert_invalid(&draft.signed(b"another secret"), "the sign is wrong");
    assert_invalid(&draft.with_sign(&format!("\"{}\"", &right[..54])), "54 characters");
    assert_invalid(&draft.with_sign(&format!("\"{right}00\"")), "66 characters");
    assert_invalid(&draft.with_sign(r#""""#), "the sign is empty");
    assert_invalid(&draft.with_sign(&format!("\"{}g\"", &right[..63])), "not hex digits");
    assert_invalid(&draft.with_sign("null"), "no sign");
    let body = draft.with_sign("null");
    assert_invalid(&body.replace(r#","sign":null"#, ""), "no sign");
    let meta = r#","meta":{"time":"2026-11-21T12:00:00.000001Z","sign":null}"#;
    assert!(body.contains(meta));
    assert_invalid(&body.replace(meta, ""), "no sign");
}

#[test]
fn no_reason_ever_shows_the_right_sign() {
    let draft = Draft::default();
    let right = hex_sign(SECRET, draft.message().as_bytes());
    let wrong = right.replace(|digit: char| digit.is_ascii_digit(), "0");
    let finding = judged(draft.with_sign(&format!("\"{wrong}\""))).unwrap();
    assert_eq!(finding.verdict, Verdict::Invalid);
    assert!(!format!("{finding:?}").contains(&right[..8]));
}

#[test]
fn a_right_sign_over_a_broken_rule_is_invalid_and_the_reason_says_which() {
    let genuine = Draft::default();
    let signed = |draft: Draft<'_>| draft.signed(SECRET);
    for status in ["-0", "2.0", "2e0", "2E0", "9223372036854775808", "1e400"] {
        assert_invalid(&signed(Draft { status, ..genuine }), "status is not written as a plain integer");
    }
    for amount in [r#""""#, r#"".5""#, r#""5.""#, r#""-1""#, r#""1e3""#, r#""0.3\n""#] {
        assert_invalid(&signed(Draft { amount, ..genuine }), "amount is not written as digits");
    }
    assert_invalid(
        &signed(Draft { amount: r#""0.300000000""#, ..genuine }),
        "the sign is right, but the transfer's amount has 9 decimals where its currency has 8",
    );
    for time in [r#""""#, r#""2026-11-21""#, r#""2026-11-21t12:00:00z""#, r#""2026-02-30T12:00:00Z""#] {
        assert_invalid(&signed(Draft { time, ..genuine }), "meta.time is not a time");
    }
}

#[test]
fn every_broken_rule_is_named() {
    let body = Draft { status: "2.0", amount: r#""x""#, time: r#""y""#, ..Draft::default() }.signed(SECRET);
    for rule in ["status", "amount", "meta.time"] {
        assert_invalid(&body, rule);
    }
}

#[test]
fn a_wrong_sign_is_named_before_a_broken_rule() {
    let body = Draft { time: r#""soon""#, ..Draft::default() }.signed(b"another secret");
    assert_eq!(judged(body).unwrap().reason, "the sign is wrong");
}

#[test]
fn the_decimals_are_those_of_the_currency_that_the_transfer_names() {
    let long = r#""0.123456789""#;
    let other = r#"{"type":"currency","id":"1003","attributes":{"exp":2}}"#;
    let both = format!("{CURRENCY},{other}");
    let draft = Draft { currency: &both, ..Draft::default() };
    assert_eq!(judged(draft.signed(SECRET)).unwrap().verdict, Verdict::Valid);
    assert_invalid(&Draft { amount: long, ..draft }.signed(SECRET), "9 decimals where its currency has 8");

    let unnamed = [
        TRANSFER.replace(r#","relationships":{"currency":{"data":{"type":"currency","id":"1002"}}}"#, ""),
        TRANSFER.replace(r#"{"type":"currency","id":"1002"}"#, "null"),
        TRANSFER.replace(r#"{"data":{"type":"currency","id":"1002"}}"#, "{}"),
        TRANSFER.replace(r#""id":"1002""#, r#""id":"9999""#),
        TRANSFER.replace(r#""type":"currency""#, r#""type":"coin""#),
    ];
    for transfer in unnamed {
        assert_ne!(transfer, TRANSFER);
        let body = Draft { transfer: &transfer, amount: long, ..Draft::default() }.signed(SECRET);
        assert_eq!(judged(body).unwrap().verdict, Verdict::Valid, "{transfer}");
    }

    let escaped = TRANSFER.replace(r#""id":"1002""#, r#""id":"\u0031002""#);
    let body = Draft { transfer: &escaped, amount: long, ..Draft::default() }.signed(SECRET);
    assert_invalid(&body, "9 decimals");
}

#[test]
fn no_transfer_and_no_sign_is_unsigned_and_to_be_confirmed() {
    let no_transfer = Draft { transfer: "", ..Draft::default() };
    let body = no_transfer.with_sign("null");
    let without_included = body.replace(&format!(r#","included":[{CURRENCY}]"#), "");
    assert!(!without_included.contains("included"));
    let bodies = [
        body.clone(),
        body.replace(r#","sign":null"#, ""),
        no_transfer.with_sign(r#""""#),
        Draft { currency: "", ..no_transfer }.with_sign("null"),
        without_included,
    ];
    for body in bodies {
        let finding = judged(&body).unwrap();
        assert_eq!(finding.verdict, Verdict::Unsigned, "{body}");
        assert!(finding.reason.contains("confirm it by asking the API"), "{}", finding.reason);
        assert_eq!(finding.generation, None);
        let facts = finding.callback.unwrap();
        assert_eq!(
            (facts.kind, facts.id.as_str(), facts.status, facts.amount.as_str()),
            (Kind::Deposit, "11203", None, "")
        );
        assert_eq!(
            (facts.tracking_id.as_str(), facts.time.as_str()),
            ("order-77", "2026-11-21T12:00:00.000001Z")
        );
        assert!(facts.authenticated_fields.is_empty());
    }
}

#[test]
fn an_unsigned_callback_needs_neither_its_signed_fields_nor_a_key() {
    let keys = SignKeys::new(&Credentials { callback_secret: None, ..v3() }, None);
    let body = br#"{"data":{"type":"payout","id":"7"}}"#;
    let finding = verify(&keys, Subject::Callback(body), Some(Duration::ZERO), now()).unwrap();
    assert_eq!(finding.verdict, Verdict::Unsigned);
}

#[test]
fn no_transfer_but_a_sign_is_invalid() {
    let draft = Draft { transfer: "", ..Draft::default() };
    assert_invalid(&draft.signed(SECRET), "no transfer");
    assert_invalid(&draft.with_sign(r#""x""#), "no transfer");
}

#[test]
fn what_is_too_old_or_too_far_ahead_is_stale_where_a_maximum_age_is_given() {
    let keys = SignKeys::new(&v3(), None);
    let body = Draft { time: r#""2026-11-21T12:00:00Z""#, ..Draft::default() }.signed(SECRET);
    let signed_at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let at = |seconds: i64, max_age: Option<u64>| {
        let now = signed_at + SignedDuration::from_secs(seconds);
        verify(&keys, Subject::Callback(body.as_bytes()), max_age.map(Duration::from_secs), now).unwrap()
    };
    assert_eq!(at(300, Some(300)).verdict, Verdict::Valid);
    assert_eq!(at(-60, Some(300)).verdict, Verdict::Valid);
    for seconds in [-61, 0, 301, 1_000_000_000] {
        assert_eq!(at(seconds, None).verdict, Verdict::Valid, "no maximum age, {seconds} s later");
    }
    let old = at(301, Some(300));
    assert_eq!((old.verdict, old.generation), (Verdict::Stale, Some(Generation::Current)));
    assert!(old.reason.contains("5m 1s ago"), "{}", old.reason);
    assert_eq!(old.callback.unwrap().authenticated_fields, SIGNED_FIELDS);

    let ahead = at(-61, Some(300));
    assert_eq!(ahead.verdict, Verdict::Stale);
    assert!(ahead.reason.contains("1m 1s in the future"), "{}", ahead.reason);
    assert_eq!(at(-60, Some(0)).verdict, Verdict::Valid);
    assert_eq!(at(1, Some(0)).verdict, Verdict::Stale);
    assert_eq!(at(1_000_000_000, Some(u64::MAX)).verdict, Verdict::Valid);
}

#[test]
fn ages_are_those_of_instants_whatever_the_zone() {
    let keys = SignKeys::new(&v3(), None);
    let body = Draft { time: r#""2026-11-21T15:00:00+03:00""#, ..Draft::default() }.signed(SECRET);
    let finding =
        verify(&keys, Subject::Callback(body.as_bytes()), Some(Duration::from_secs(60)), now()).unwrap();
    assert_eq!(finding.verdict, Verdict::Valid);
}

#[test]
fn invalid_comes_before_stale() {
    let keys = SignKeys::new(&v3(), None);
    let old = Draft { time: r#""2001-01-01T00:00:00Z""#, ..Draft::default() };
    for body in [old.signed(b"another secret"), Draft { amount: r#""1.""#, ..old }.signed(SECRET)] {
        let finding =
            verify(&keys, Subject::Callback(body.as_bytes()), Some(Duration::from_secs(1)), now()).unwrap();
        assert_eq!(finding.verdict, Verdict::Invalid);
    }
}

#[test]
fn what_is_not_json_is_malformed() {
    let genuine = Draft::default().signed(SECRET);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "is empty"),
        (b" \n".to_vec(), "is empty"),
        (b"status=2".to_vec(), "is not JSON"),
        (genuine.as_bytes()[..genuine.len() - 1].to_vec(), "is not JSON"),
        (format!("{genuine}{genuine}").into_bytes(), "is not JSON"),
        (format!("\u{feff}{genuine}").into_bytes(), "byte order mark"),
        (genuine.replace("order-77", "order\n77").into_bytes(), "is not JSON"),
        (genuine.replace(r#""status":2"#, r#""status":02"#).into_bytes(), "is not JSON"),
        (genuine.replace(r#""status":2"#, r#""status":+2"#).into_bytes(), "is not JSON"),
        ([&genuine.as_bytes()[..40], b"\xFF", &genuine.as_bytes()[41..]].concat(), "is not UTF-8"),
        (b"[]".to_vec(), "must be an object, is an array"),
        (b"null".to_vec(), "must be an object, is null"),
    ];
    for (body, expected) in cases {
        assert_malformed(body, &[("callback", expected)]);
    }
}

#[test]
fn what_is_too_deep_is_malformed_wherever_that_is() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_malformed(deep(100_000), &[("callback", "inside each other")]);
    let skipped = format!(r#""user_message":{}"#, deep(200));
    assert_malformed(with(r#""user_message":null"#, &skipped), &[("callback", "inside each other")]);
    let skipped = format!(r#""user_message":{}"#, deep(100));
    assert_eq!(judged(with(r#""user_message":null"#, &skipped)).unwrap().verdict, Verdict::Valid);
}

#[test]
fn over_256_kib_is_malformed_and_exactly_256_kib_is_not() {
    let body = Draft::default().signed(SECRET);
    let longest = format!("{body}{}", " ".repeat(MAX_CALLBACK - body.len()));
    assert_eq!(longest.len(), 262_144);
    assert_eq!(judged(&longest).unwrap().verdict, Verdict::Valid);
    assert_malformed(format!("{longest} "), &[("callback", "262145 bytes")]);
}

#[test]
fn a_repeated_key_on_a_path_that_is_read_is_malformed() {
    let again = |member: &str| format!("{member},{member}");
    let repeated = [
        (r#""type":"deposit""#, "data.type"),
        (r#""id":"11203""#, "data.id"),
        (r#""tracking_id":"order-77""#, "data.attributes.tracking_id"),
        (r#""exp":8"#, "included[0].attributes.exp"),
        (r#""amount":"0.30000000""#, "included[1].attributes.amount"),
        (r#""status":2"#, "included[1].attributes.status"),
        (r#""time":"2026-11-21T12:00:00.000001Z""#, "meta.time"),
        (r#""currency":{"data":{"type":"currency","id":"1002"}}"#, "included[1].relationships.currency"),
    ];
    for (member, path) in repeated {
        assert_malformed(with(member, &again(member)), &[(path, "more than once")]);
    }
    let containers = [
        (r#"{"data":{"type":"dep"#, r#"{"data":{},"data":{"type":"dep"#, "data"),
        (r#""attributes":{"address""#, r#""attributes":{},"attributes":{"address""#, "data.attributes"),
        (r#""included":["#, r#""included":[],"included":["#, "included"),
        (r#""meta":{"#, r#""meta":{},"meta":{"#, "meta"),
        (r#""attributes":{"conf"#, r#""attributes":{},"attributes":{"conf"#, "included[1].attributes"),
        (
            r#""relationships":{"currency""#,
            r#""relationships":1,"relationships":{"currency""#,
            "included[1].relationships",
        ),
        (
            r#"{"currency":{"data""#,
            r#"{"currency":{"data":null,"data""#,
            "included[1].relationships.currency.data",
        ),
        (
            r#"{"type":"transfer","id":"17618","att"#,
            r#"{"type":"x","type":"transfer","id":"17618","att"#,
            "included[1].type",
        ),
        (r#""sign":""#, r#""sign":null,"sign":""#, "meta.sign"),
    ];
    for (part, replacement, path) in containers {
        assert_malformed(with(part, replacement), &[(path, "more than once")]);
    }
}

#[test]
fn a_key_is_repeated_however_it_is_escaped() {
    let body = with(r#"{"data":{"type":"dep"#, r#"{"\u0064ata":{},"data":{"type":"dep"#);
    assert_malformed(body, &[("data", "more than once")]);
    let body = with(r#""status":2"#, r#""status":2,"s\u0074atus":-1"#);
    assert_malformed(body, &[("included[1].attributes.status", "more than once")]);
}

#[test]
fn keys_that_are_not_read_may_repeat_and_hold_anything() {
    let bodies = [
        with(r#""fee":"0.0""#, r#""fee":"0.0","fee":1e999,"fee":{"status":9,"status":"x"},"f":"\ud800""#),
        with(r#""address":"0xcb","tracking_id""#, r#""address":1,"address":2,"amount":3,"tracking_id""#),
        with(
            r#""type":"transfer","id":"17618","attributes""#,
            r#""id":1,"id":2,"type":"transfer","attributes""#,
        ),
        with(
            r#""included":["#,
            r#""included":[{"id":1,"id":2,"attributes":5,"type":"wallet","relationships":[]},"#,
        ),
        with(r#"{"data":{"type":"dep"#, r#"{"Data":1,"data ":2,"links":[],"links":{},"data":{"type":"dep"#),
    ];
    for body in bodies {
        let finding = judged(&body).unwrap_or_else(|error| panic!("{error} in {body}"));
        assert_eq!(finding.verdict, Verdict::Valid, "{body}");
    }
}

#[test]
fn two_transfers_are_malformed() {
    let body = with(r#""included":["#, r#""included":[{"type":"transfer"},{"type":"transfer"},"#);
    let expected = [
        ("included[1]", "second transfer, the first is included[0]"),
        ("included[3]", "second transfer, the first is included[0]"),
        ("included[0].attributes.status", "is missing"),
        ("included[0].attributes.amount", "is missing"),
    ];
    assert_malformed(body, &expected);
}

#[test]
fn two_currencies_by_one_name_are_malformed() {
    let twice = format!("{CURRENCY},{}", CURRENCY.replace(r#""exp":8"#, r#""exp":18"#));
    let body = Draft { currency: &twice, ..Draft::default() }.signed(SECRET);
    assert_malformed(body, &[("included[1].id", "the same as included[0].id")]);
}

#[test]
fn an_unknown_or_missing_data_type_is_malformed() {
    for kind in [r#""invoice""#, r#""Deposit""#, r#""deposit ""#, r#""""#] {
        let body = Draft { kind, ..Draft::default() }.signed(SECRET);
        assert_malformed(body, &[("data.type", "must be deposit or payout")]);
    }
    assert_malformed(with(r#""type":"deposit","#, ""), &[("data.type", "is missing")]);
    assert_malformed("{}", &[("data.type", "is missing"), ("data.id", "is missing")]);
}

#[test]
fn fields_of_the_wrong_type_are_malformed() {
    let genuine = Draft::default();
    let cases = [
        (Draft { kind: "1", ..genuine }.signed(SECRET), "data.type", "must be a string, is a number"),
        (with(r#""id":"11203""#, r#""id":11203"#), "data.id", "must be a string, is a number"),
        (Draft { tracking_id: "null", ..genuine }.signed(SECRET), "data.attributes.tracking_id", "is null"),
        (Draft { tracking_id: "77", ..genuine }.signed(SECRET), "data.attributes.tracking_id", "is a number"),
        (Draft { tracking_id: "[]", ..genuine }.signed(SECRET), "data.attributes.tracking_id", "is an array"),
        (
            Draft { tracking_id: r#""\ud83d""#, ..genuine }.signed(SECRET),
            "data.attributes.tracking_id",
            "surrogate",
        ),
        (
            Draft { status: r#""2""#, ..genuine }.signed(SECRET),
            "included[1].attributes.status",
            "is a string",
        ),
        (Draft { status: "null", ..genuine }.signed(SECRET), "included[1].attributes.status", "is null"),
        (Draft { status: "true", ..genuine }.signed(SECRET), "included[1].attributes.status", "is a boolean"),
        (Draft { amount: "0.3", ..genuine }.signed(SECRET), "included[1].attributes.amount", "is a number"),
        (Draft { amount: "null", ..genuine }.signed(SECRET), "included[1].attributes.amount", "is null"),
        (Draft { time: "1798804800", ..genuine }.signed(SECRET), "meta.time", "is a number"),
        (Draft { time: "null", ..genuine }.signed(SECRET), "meta.time", "is null"),
        (genuine.with_sign("1"), "meta.sign", "is a number"),
        (genuine.with_sign("{}"), "meta.sign", "is an object"),
        (genuine.with_sign("false"), "meta.sign", "is a boolean"),
        (with(r#""exp":8"#, r#""exp":"8""#), "included[0].attributes.exp", "whole number"),
        (with(r#""exp":8"#, r#""exp":-1"#), "included[0].attributes.exp", "whole number"),
        (with(r#""exp":8"#, r#""exp":8.0"#), "included[0].attributes.exp", "whole number"),
        (with(r#","exp":8"#, ""), "included[0].attributes.exp", "how many decimals"),
        (
            with(r#""type":"currency","id":"1002","attributes""#, r#""type":"currency","id":1,"attributes""#),
            "included[0].id",
            "is a number",
        ),
        (
            with(r#"{"data":{"type":"currency","id":"1002"}}"#, "null"),
            "included[1].relationships.currency",
            "must be an object, is null",
        ),
        (
            with(r#"{"data":{"type":"currency","id":"1002"}}"#, r#"{"data":[]}"#),
            "included[1].relationships.currency.data",
            "must be an object, is an array",
        ),
        (
            with(r#""type":"transfer","id":"17618","attributes""#, r#""type":null,"attributes""#),
            "included[1].type",
            "is null",
        ),
        (
            with(r#""type":"transfer","id":"17618","attributes""#, r#""attributes""#),
            "included[1].type",
            "is missing",
        ),
        (with(r#""included":["#, r#""included":[[],"#), "included[0]", "must be an object, is an array"),
    ];
    for (body, path, words) in cases {
        assert_malformed(body, &[(path, words)]);
    }
}

#[test]
fn a_container_of_the_wrong_type_is_one_violation_and_not_one_for_each_thing_in_it() {
    let bodies = [
        (
            r#"{"data":{"type":"deposit","id":"1","attributes":null},"included":[],"meta":{}}"#,
            "data.attributes",
        ),
        (r#"{"data":[],"included":[],"meta":{}}"#, "data"),
        (r#"{"data":{"type":"deposit","id":"1"},"included":null,"meta":{}}"#, "included"),
        (r#"{"data":{"type":"deposit","id":"1"},"included":{"type":"transfer"},"meta":{}}"#, "included"),
        (r#"{"data":{"type":"deposit","id":"1"},"included":[],"meta":null}"#, "meta"),
        (r#"{"data":{"type":"deposit","id":"1"},"included":[],"meta":"x"}"#, "meta"),
    ];
    for (body, path) in bodies {
        assert_malformed(body, &[(path, "must be an")]);
    }
}

#[test]
fn a_signed_field_that_is_missing_is_malformed_where_there_is_a_sign() {
    let cases = [
        (r#""tracking_id":"order-77","#, "data.attributes.tracking_id"),
        (r#""amount":"0.30000000","#, "included[1].attributes.amount"),
        (r#""status":2,"#, "included[1].attributes.status"),
        (r#""time":"2026-11-21T12:00:00.000001Z","#, "meta.time"),
    ];
    for (member, path) in cases {
        assert_malformed(with(member, ""), &[(path, "is missing")]);
    }
}

#[test]
fn all_violations_are_told_in_one_go() {
    let body = r#"{"data":{"type":"gift","id":1},"included":[7,{"type":"transfer","attributes":{"status":"2"}}],"meta":{"time":null,"sign":"ab"}}"#;
    assert_malformed(
        body,
        &[
            ("data.type", "must be deposit or payout"),
            ("data.id", "must be a string"),
            ("included[0]", "must be an object"),
            ("included[1].attributes.status", "must be a number"),
            ("meta.time", "must be a string"),
            ("data.attributes.tracking_id", "is missing"),
            ("included[1].attributes.amount", "is missing"),
        ],
    );
}

#[test]
fn there_is_an_end_to_what_is_told() {
    let body = format!(r#"{{"data":{{"type":"deposit","id":"1"}},"included":[{}1]}}"#, "1,".repeat(100_000));
    let Err(VerifyError::Malformed(violations)) = judged(body) else { panic!("it was read") };
    assert_eq!(violations.len(), MAX_VIOLATIONS);
    assert!(violations.last().unwrap().description.contains("99986 more"), "{violations:?}");
}

#[test]
fn an_error_shows_no_values() {
    let body = Draft { kind: r#""s3cret""#, tracking_id: "5773", ..Draft::default() }.signed(SECRET);
    let error = judged(body).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("5773"), "{shown}");
}

#[test]
fn the_previous_key_counts_after_the_current_one_and_until_its_end() {
    let until = now() + SignedDuration::from_secs(1);
    let keys = SignKeys::new(&v3(), Some((&v2(), until)));
    let v2_key: [u8; 32] = {
        use sha2::Digest as _;
        sha2::Sha256::digest(b"nQns0adI5CZNj3BXNFKKthfRk07tM").into()
    };
    let body = Draft::default().signed(&v2_key);
    let finding = verify(&keys, Subject::Callback(body.as_bytes()), None, now()).unwrap();
    assert_eq!((finding.verdict, finding.generation), (Verdict::Valid, Some(Generation::Previous)));
    assert!(
        finding.reason.contains("previous key, which counts until 2026-11-21T12:01:01Z"),
        "{}",
        finding.reason
    );

    let current = Draft::default().signed(SECRET);
    let finding = verify(&keys, Subject::Callback(current.as_bytes()), None, now()).unwrap();
    assert_eq!(finding.generation, Some(Generation::Current));

    let finding = verify(&keys, Subject::Callback(body.as_bytes()), None, until).unwrap();
    assert_eq!(finding.verdict, Verdict::Invalid);

    let stale =
        verify(&keys, Subject::Callback(body.as_bytes()), Some(Duration::from_secs(1)), now()).unwrap();
    assert_eq!((stale.verdict, stale.generation), (Verdict::Stale, Some(Generation::Previous)));
}

#[test]
fn under_equal_keys_the_current_one_is_named() {
    let keys = SignKeys::new(&v3(), Some((&v3(), Timestamp::MAX)));
    let body = Draft::default().signed(SECRET);
    let finding = verify(&keys, Subject::Callback(body.as_bytes()), None, now()).unwrap();
    assert_eq!(finding.generation, Some(Generation::Current));
}

#[test]
fn without_a_callback_secret_only_the_previous_key_can_accept() {
    let bare = Credentials { callback_secret: None, ..v3() };
    let body = Draft::default().signed(SECRET);
    let alone = SignKeys::new(&bare, None);
    assert_eq!(
        verify(&alone, Subject::Callback(body.as_bytes()), None, now()),
        Err(VerifyError::NoCallbackSecret)
    );
    let sign = hex_sign(SECRET, b"x");
    let message = Subject::Message { message: b"x", sign: &sign };
    assert_eq!(verify(&alone, message, None, now()), Err(VerifyError::NoCallbackSecret));

    let with_previous = SignKeys::new(&bare, Some((&v3(), Timestamp::MAX)));
    let finding = verify(&with_previous, Subject::Callback(body.as_bytes()), None, now()).unwrap();
    assert_eq!((finding.verdict, finding.generation), (Verdict::Valid, Some(Generation::Previous)));
    let forged = Draft::default().signed(b"another secret");
    assert_eq!(
        verify(&with_previous, Subject::Callback(forged.as_bytes()), None, now()),
        Err(VerifyError::NoCallbackSecret)
    );
}

mod token_responses {
    use super::*;

    const TIME: &str = "2020-08-24T10:33:33.192479Z";
    const REFRESH: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUz";
    const SIGN: &str = "62ca91697d5d6832576abb38810ab0c9e072b6de56e5a73b043412c87545ef44";

    fn judged(time: &str, refresh_token: &str, sign: &str) -> Finding {
        let keys = SignKeys::new(&v2(), None);
        verify(&keys, Subject::TokenResponse { time, refresh_token, sign }, None, now()).unwrap()
    }

    #[test]
    fn right_signs_are_valid_and_wrong_ones_are_not() {
        let finding = judged(TIME, REFRESH, SIGN);
        assert_eq!((finding.verdict, finding.generation), (Verdict::Valid, Some(Generation::Current)));
        assert_eq!(finding.callback, None);
        assert_eq!(judged(TIME, REFRESH, &SIGN.to_uppercase()).verdict, Verdict::Valid);
        assert_eq!(judged(TIME, REFRESH, "").reason, "the sign is empty");
        assert_eq!(judged(TIME, "eyJ1", SIGN).verdict, Verdict::Invalid);
    }

    #[test]
    fn characters_cannot_move_between_the_time_and_the_token() {
        for at in [TIME.len() - 1, TIME.len() + 1] {
            let whole = format!("{TIME}{REFRESH}");
            let (time, token) = whole.split_at(at);
            let finding = judged(time, token, SIGN);
            assert_eq!(finding.verdict, Verdict::Invalid);
            assert!(finding.reason.contains("meta.time is not a time"), "{}", finding.reason);
        }
    }

    #[test]
    fn v3_does_not_sign_them_even_where_the_previous_credentials_are_of_v2() {
        let keys = SignKeys::new(&v3(), Some((&v2(), Timestamp::MAX)));
        let subject = Subject::TokenResponse { time: TIME, refresh_token: REFRESH, sign: SIGN };
        assert_eq!(verify(&keys, subject, None, now()), Err(VerifyError::NotSignedByThisApi));
    }

    #[test]
    fn only_v2_keys_count() {
        let keys = SignKeys::new(&v2(), Some((&v3(), Timestamp::MAX)));
        let sign = hex_sign(SECRET, format!("{TIME}{REFRESH}").as_bytes());
        let subject = Subject::TokenResponse { time: TIME, refresh_token: REFRESH, sign: &sign };
        assert_eq!(verify(&keys, subject, None, now()).unwrap().verdict, Verdict::Invalid);

        let rotated = Credentials { secret: "new".to_owned().into(), ..v2() };
        let keys = SignKeys::new(&rotated, Some((&v2(), Timestamp::MAX)));
        let subject = Subject::TokenResponse { time: TIME, refresh_token: REFRESH, sign: SIGN };
        assert_eq!(verify(&keys, subject, None, now()).unwrap().generation, Some(Generation::Previous));
    }

    #[test]
    fn they_grow_stale() {
        let keys = SignKeys::new(&v2(), None);
        let subject = Subject::TokenResponse { time: TIME, refresh_token: REFRESH, sign: SIGN };
        let finding = verify(&keys, subject, Some(Duration::from_secs(60)), now()).unwrap();
        assert_eq!((finding.verdict, finding.generation), (Verdict::Stale, Some(Generation::Current)));
    }
}

mod messages {
    use super::*;

    fn judged(message: &[u8], sign: &str) -> Finding {
        verify(&SignKeys::new(&v3(), None), Subject::Message { message, sign }, Some(Duration::ZERO), now())
            .unwrap()
    }

    #[test]
    fn any_bytes_can_be_signed() {
        for message in [b"".as_slice(), b"text", b"\x00\xFF\xFE", &vec![b'a'; 100_000]] {
            let sign = hex_sign(SECRET, message);
            let finding = judged(message, &sign);
            assert_eq!((finding.verdict, finding.generation), (Verdict::Valid, Some(Generation::Current)));
            assert_eq!(judged(&[message, b"x"].concat(), &sign).verdict, Verdict::Invalid);
            assert_eq!(judged(message, &sign[1..]).verdict, Verdict::Invalid);
        }
    }
}

mod near_misses {
    use super::*;

    fn v2_key() -> [u8; 32] {
        use sha2::Digest as _;
        sha2::Sha256::digest(b"nQns0adI5CZNj3BXNFKKthfRk07tM").into()
    }

    #[test]
    fn the_v2_key_of_the_same_credentials() {
        assert_invalid(&Draft::default().signed(&v2_key()), "it matches the v2 key of these credentials");
        let sign = hex_sign(&v2_key(), b"x");
        let subject = Subject::Message { message: b"x", sign: &sign };
        let finding = verify(&SignKeys::new(&v3(), None), subject, None, now()).unwrap();
        assert!(finding.reason.contains("it matches the v2 key"), "{}", finding.reason);
    }

    #[test]
    fn a_line_break_that_crept_in() {
        for line_break in ["\n", "\r\n"] {
            let message = format!("text{line_break}");
            let sign = hex_sign(SECRET, b"text");
            let subject = Subject::Message { message: message.as_bytes(), sign: &sign };
            let finding = verify(&SignKeys::new(&v3(), None), subject, None, now()).unwrap();
            assert_eq!(finding.verdict, Verdict::Invalid);
            assert_eq!(finding.reason, "the sign is wrong; it matches without the line break at its end");
        }
        let draft = Draft { tracking_id: r#""order-77\n""#, ..Draft::default() };
        assert_invalid(
            &draft.signed_for(SECRET, &Draft::default().message()),
            "matches without the line break at the end of tracking_id",
        );
        let time = "2020-08-24T10:33:33.192479Z";
        let sign = hex_sign(&v2_key(), format!("{time}eyJ0").as_bytes());
        let subject = Subject::TokenResponse { time, refresh_token: "eyJ0\n", sign: &sign };
        let finding = verify(&SignKeys::new(&v2(), None), subject, None, now()).unwrap();
        assert!(finding.reason.contains("without the line break"), "{}", finding.reason);
    }

    #[test]
    fn a_tracking_id_that_was_signed_as_it_is_escaped() {
        let draft = Draft { tracking_id: r#""caf\u00e9""#, ..Draft::default() };
        let message = draft.message().replace("café", r"caf\u00e9");
        assert_invalid(
            &draft.signed_for(SECRET, &message),
            "with tracking_id as it is escaped in the source",
        );
    }

    #[test]
    fn values_that_were_read_and_written_again() {
        let genuine = Draft::default();
        let rewritten = [
            (Draft { status: "2.0", ..genuine }, "with the status as a plain integer"),
            (Draft { amount: r#""0.3""#, ..genuine }, "with all decimals of the currency in the amount"),
            (Draft { time: r#""2026-11-21T12:00:00.000001+00:00""#, ..genuine }, "with the time's zone"),
        ];
        for (draft, hint) in rewritten {
            assert_invalid(&draft.signed_for(SECRET, &genuine.message()), hint);
        }
        let whole = Draft { amount: r#""5.00000000""#, ..genuine };
        let rewritten = Draft { amount: r#""5""#, ..genuine };
        assert_invalid(&rewritten.signed_for(SECRET, &whole.message()), "all decimals");
        let offset = Draft { time: r#""2026-11-21T12:00:00+00:00""#, ..genuine };
        let rewritten = Draft { time: r#""2026-11-21T12:00:00Z""#, ..genuine };
        assert_invalid(&rewritten.signed_for(SECRET, &offset.message()), "with the time's zone");
    }

    #[test]
    fn a_miss_under_the_previous_key_is_told_too() {
        let keys = SignKeys::new(&v3(), Some((&v2(), Timestamp::MAX)));
        let sign = hex_sign(&v2_key(), b"text");
        let subject = Subject::Message { message: b"text\n", sign: &sign };
        let finding = verify(&keys, subject, None, now()).unwrap();
        assert!(finding.reason.contains("without the line break"), "{}", finding.reason);
    }

    #[test]
    fn a_long_message_is_not_tried_again() {
        let message = vec![b'x'; 10_000];
        let sign = hex_sign(SECRET, &message);
        let with_line_break = [message.as_slice(), b"\n"].concat();
        let subject = Subject::Message { message: &with_line_break, sign: &sign };
        let finding = verify(&SignKeys::new(&v3(), None), subject, None, now()).unwrap();
        assert_eq!(finding.reason, "the sign is wrong");
    }
}
