//! What is told, how often, and in which words.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::{
    caller::NoName,
    clock::BootInstant,
    token::{AccessToken, TokenId},
};

/// A clock that stands until somebody moves it.
#[derive(Default)]
struct TestClock(AtomicU64);

impl TestClock {
    fn pass(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let passed = self.0.load(Ordering::Relaxed);
        Now {
            boot: BootInstant::since_boot(Duration::from_millis(passed)),
            wall: Timestamp::from_millisecond(1_795_000_000_000 + i64::try_from(passed).unwrap()).unwrap(),
        }
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<Record>>);

impl AuditSink for Kept {
    fn write(&self, record: Record) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    fn reopen(&self) {}

    fn flush(&self) {}

    fn state(&self) -> SinkState {
        SinkState::default()
    }
}

impl Kept {
    /// What came since this was last asked, as who reads the log sees it.
    fn lines(&self) -> Vec<Value> {
        let records = std::mem::take(&mut *self.0.lock().unwrap());
        let read = |record: Record| {
            let line = record.line();
            assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            serde_json::from_slice(&line).unwrap()
        };
        records.into_iter().map(read).collect()
    }
}

fn log() -> (AuditLog, Arc<Kept>, Arc<TestClock>) {
    let (kept, clock) = (Arc::new(Kept::default()), Arc::new(TestClock::default()));
    (AuditLog::new(kept.clone(), clock.clone(), 1), kept, clock)
}

fn name(text: &str) -> CallerName {
    text.parse().unwrap()
}

fn process(uid: u32) -> Peer {
    Peer::Unix { uid, gid: 7, groups: Vec::new(), pid: Some(4711), unit: "payouts.service".parse().ok() }
}

fn host(name: &str) -> Peer {
    let named = name.parse().map(crate::caller::CertifiedName::Spiffe);
    let named = named.or_else(|_| name.parse().map(crate::caller::CertifiedName::Dns)).unwrap();
    Peer::Tls { address: "10.1.2.3:4711".parse().unwrap(), name: Ok(named) }
}

fn stranger(peer: &Peer) -> Denial {
    Denial::CallerUnknown { peer: peer.clone() }
}

fn token() -> TokenId {
    AccessToken::parse("a-token".to_owned().into()).unwrap().id()
}

/// How many denials these lines stand for.
fn total(lines: &[Value]) -> u64 {
    lines.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum()
}

#[test]
fn a_line_says_who_asked_for_what_and_why_not() {
    let (log, kept, _) = log();
    let denial = Denial::MethodNotAllowed { caller: name("payouts"), permission: Permission::Health };
    log.call_denied(&process(1000), Some(Permission::Health), &denial);
    let expected = serde_json::json!({
        "log": "audit",
        "time": "2026-11-18T11:06:40.000+00:00",
        "event": "call_denied",
        "caller": {"name": "payouts", "uid": 1000, "gid": 7, "pid": 4711, "unit": "payouts.service"},
        "method": "Health",
        "decision": "denied",
        "reason": "METHOD_NOT_ALLOWED",
        "detail": denial.to_string(),
        "credential_generation": 1,
    });
    assert_eq!(kept.lines(), [expected]);

    let peer = host("spiffe://example.org/shop");
    log.token_read(&name("shop"), &peer, Permission::GetAccessToken, (token(), 1));
    log.token_read(&name("erp"), &host("erp.example.org"), Permission::WatchAccessToken, (token(), 1));
    log.token_reads(&name("shop"), token(), 17);
    let lines = kept.lines();
    assert_eq!(lines[0]["caller"]["spiffe_id"], "spiffe://example.org/shop");
    assert_eq!(lines[0]["caller"]["address"], "10.1.2.3:4711");
    assert_eq!(lines[0]["token_id"], token().to_string());
    assert_eq!(lines[1]["caller"]["dns_name"], "erp.example.org");
    assert_eq!(lines[1]["method"], "WatchAccessToken");
    assert_eq!((&lines[2]["event"], &lines[2]["count"]), (&Value::from("token_reads"), &Value::from(17)));
}

#[test]
fn a_storm_of_denials_is_a_line_a_second_and_every_one_is_counted() {
    let (log, kept, clock) = log();
    let peer = process(1000);
    for _ in 0..10_000 {
        log.call_denied(&peer, Some(Permission::GetAccessToken), &stranger(&peer));
        clock.pass(1);
        log.settle();
    }
    clock.pass(1000);
    log.settle();
    let lines = kept.lines();
    assert!((10..=12).contains(&lines.len()), "{}", lines.len());
    assert_eq!(total(&lines), 10_000);
    clock.pass(60_000);
    log.settle();
    assert_eq!(kept.lines(), [] as [Value; 0]);
}

#[test]
fn what_the_next_denial_finds_untold_it_tells() {
    let (log, kept, clock) = log();
    let peer = process(1000);
    let deny = || log.call_denied(&peer, None, &stranger(&peer));
    (0..5).for_each(|_| deny());
    clock.pass(1000);
    deny();
    let lines = kept.lines();
    assert_eq!(lines.iter().map(|line| line["count"].as_u64()).collect::<Vec<_>>(), [None, Some(5)]);
}

#[test]
fn one_origin_s_storm_hides_no_other_s_denial() {
    let (log, kept, _) = log();
    for uid in [1, 2] {
        let peer = process(uid);
        (0..100).for_each(|_| log.call_denied(&peer, None, &stranger(&peer)));
    }
    let payouts = Denial::MethodNotAllowed { caller: name("payouts"), permission: Permission::Health };
    log.call_denied(&process(1), Some(Permission::Health), &payouts);
    // Nor does one method or reason hide another.
    log.call_denied(&process(1), Some(Permission::GetAccessToken), &payouts);
    log.locked_out(&name("payouts"), &process(1), Permission::GetAccessToken, &"a key was stolen");
    log.connection_denied(Some(&name("payouts")), &process(1), &"it has all");
    log.connection_denied(None, &process(1), &"strangers have all");
    for peer in [host("a.example.org"), host("b.example.org")] {
        log.call_denied(&peer, None, &stranger(&peer));
    }
    assert_eq!(kept.lines().len(), 9);
    log.settle_all();
    let rest = kept.lines();
    assert_eq!((rest.len(), total(&rest)), (2, 198));
}

#[test]
fn any_number_of_strangers_takes_a_bounded_number_of_lines() {
    let (log, kept, clock) = log();
    for uid in 0..5000 {
        log.call_denied(&process(uid), None, &stranger(&process(uid)));
    }
    let lines = kept.lines();
    assert_eq!(lines.len(), 257, "one for each of 256, and one for all others");
    clock.pass(1000);
    log.settle();
    let rest = kept.lines();
    assert_eq!(rest.len(), 1);
    assert_eq!(total(&lines) + total(&rest), 5000);
    // And a caller's denial has a line of its own among them.
    (0..300).for_each(|uid| log.call_denied(&process(uid), None, &stranger(&process(uid))));
    assert!(kept.lines().len() >= 255);
    let payouts = Denial::MethodNotAllowed { caller: name("payouts"), permission: Permission::Health };
    log.call_denied(&process(1), Some(Permission::Health), &payouts);
    assert_eq!(kept.lines()[0]["caller"]["name"], "payouts");
    clock.pass(1000);
    log.settle();
    kept.lines();
    // Who is quiet makes room.
    clock.pass(1000);
    log.settle();
    let late = process(6000);
    log.call_denied(&late, None, &stranger(&late));
    log.call_denied(&process(6001), None, &stranger(&process(6001)));
    assert_eq!(kept.lines().len(), 2);
}

#[test]
fn who_does_not_come_in_is_told_by_its_address_and_each_reason_for_itself() {
    let (log, kept, clock) = log();
    let nobody = |port: u16| Peer::Tls {
        address: format!("10.1.2.3:{port}").parse().unwrap(),
        name: Err(NoName::Nothing),
    };
    for port in 0..1000 {
        log.handshake_failed(&nobody(port), "NOT_TLS", "it doesn't speak TLS");
    }
    log.handshake_failed(&nobody(4711), "CERTIFICATE_REVOKED", "its certificate is revoked");
    let peer = host("spiffe://example.org/shop");
    log.connection_ended(Some(&name("shop")), &peer, "CERTIFICATE_REVOKED", "its certificate is revoked");
    let lines = kept.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["caller"], serde_json::json!({"address": "10.1.2.3:4711"}));
    assert_eq!((&lines[1]["event"], &lines[1]["decision"]), (&"handshake_failed".into(), &"denied".into()));
    assert_eq!(
        (&lines[2]["event"], &lines[2]["caller"]["name"]),
        (&"connection_ended".into(), &"shop".into())
    );
    clock.pass(1000);
    log.settle();
    assert_eq!(total(&kept.lines()), 999);
}

#[test]
fn forged_signs_are_told_by_their_kind_and_bounded_as_well() {
    let (log, kept, clock) = log();
    let hooks = name("hooks");
    (0..50).for_each(|_| log.sign_forged(&hooks, &process(1), ForgedKind::Callback));
    log.sign_forged(&hooks, &process(1), ForgedKind::Message);
    let lines = kept.lines();
    clock.pass(1000);
    log.settle();
    let lines = [lines, kept.lines()].concat();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["reason"], "INVALID");
    assert_eq!(lines[0]["method"], "VerifySign");
    assert_eq!(lines[1]["method"], "VerifySign:message");
    assert_eq!(total(&lines), 51);
}

#[test]
fn what_an_operator_did_says_whether_it_was_done() {
    let (log, kept, _) = log();
    let (ops, peer) = (name("ops"), process(0));
    log.admin(AdminAct::Lockdown, Some((&ops, &peer)), Ok("everybody: a key was stolen".into()));
    log.admin(AdminAct::Reload, None, Err(("CREDENTIALS_REJECTED", "the upstream refuses them".into())));
    log.admin(AdminAct::Unlock, Some((&ops, &peer)), Ok(String::new()));
    log.credentials_changed(2, "by a reload".into());
    log.stopped();
    let lines = kept.lines();
    assert_eq!(lines[0]["event"], "lockdown");
    assert_eq!(lines[0]["caller"]["name"], "ops");
    assert_eq!(lines[0]["decision"], "allowed");
    assert_eq!(lines[1]["decision"], "denied");
    assert_eq!(lines[1]["reason"], "CREDENTIALS_REJECTED");
    assert_eq!(lines[1]["caller"], Value::Null);
    assert_eq!(lines[2]["event"], "unlock");
    assert_eq!(lines[3]["credential_generation"], 2);
    assert_eq!(lines[4]["credential_generation"], 2);
}

/// All security events.
fn security_events() -> Vec<SecurityEvent> {
    vec![
        SecurityEvent::RefreshTokenSuspicious,
        SecurityEvent::UpstreamSignWrong,
        SecurityEvent::TokenReportedRejected { token: token(), caller: name("payouts") },
        SecurityEvent::TokenWithdrawn { token: token() },
        SecurityEvent::ForeignTraffic,
    ]
}

#[test]
fn every_security_event_is_told_by_its_word() {
    let (log, kept, _) = log();
    for event in security_events() {
        log.security(&event);
        let line = kept.lines().remove(0);
        assert_eq!(line["event"], event.word());
        assert_eq!(line["detail"], event.to_string());
        let token = matches!(
            event,
            SecurityEvent::TokenReportedRejected { .. } | SecurityEvent::TokenWithdrawn { .. }
        );
        assert_eq!(line.get("token_id").is_some(), token);
    }
}

/// What stands between backticks at the beginning of the rows of the table under this heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = include_str!("../../docs/audit.md");
    let section = text.split_once(&format!("## {heading}\n")).expect("the heading is there").1;
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(word, _)| word.to_owned()).collect()
}

#[test]
fn the_documentation_has_every_event_and_every_field() {
    let words = Event::ALL.into_iter().map(Event::word);
    let events: BTreeSet<_> =
        words.chain(security_events().iter().map(SecurityEvent::word)).map(str::to_owned).collect();
    assert_eq!(documented("Events"), events);

    let (log, kept, _) = log();
    let peers = [process(1), host("a.example.org"), host("spiffe://example.org/a")];
    for peer in &peers {
        log.token_read(&name("a"), peer, Permission::GetAccessToken, (token(), 1));
        log.call_denied(peer, Some(Permission::Health), &stranger(peer));
    }
    log.token_reads(&name("a"), token(), 2);
    let mut fields = BTreeSet::new();
    for line in kept.lines() {
        for (field, value) in line.as_object().unwrap() {
            fields.insert(field.clone());
            for member in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
                fields.insert(format!("{field}.{member}"));
            }
        }
    }
    assert_eq!(documented("Fields"), fields);
}

#[test]
fn the_examples_of_the_documentation_are_lines() {
    let examples: Vec<Value> = include_str!("../../docs/audit.md")
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shown: BTreeSet<_> = examples.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, documented("Events"));
    for line in examples {
        for field in line.as_object().unwrap().keys() {
            assert!(documented("Fields").contains(field), "{field}");
        }
        let time = line["time"].as_str().unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.ends_with("+00:00"), "{time}");
    }
}
