//! The audit log of the real daemon: every event in its words, storms in few lines, and no disk that stops anything.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, path::PathBuf, time::Duration};

use b2binpay_broker::grpc::proto::{SignedMessage, Verdict, verify_sign_request::Subject};
use b2binpay_simulator::{Api, Simulator};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    Answered, Caller, Daemon, Home, Setup, World, generous, hex,
    raw::GET_ACCESS_TOKEN,
    soon,
    users::{connect_as, may_be_others},
};

/// A user whom no policy of these tests names.
const STRANGER: u32 = 54321;

/// A folder for audit logs, and a setup that writes one there.
struct Trail {
    folder: tempfile::TempDir,
}

impl Trail {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn setup(&self) -> Setup {
        Setup { rest: format!("[audit]\nfile = \"{}\"\n", self.path().display()), ..Setup::default() }
    }

    /// All lines; what is half a line is left out.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn of(&self, event: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["event"] == event).collect()
    }

    /// Waits until the lines of this event are as they should be.
    async fn has(&self, event: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let waiting = async {
            loop {
                let lines = self.of(event);
                if holds(&lines) {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(&format!("the audit log has its {event}"), waiting).await
    }
}

fn total(lines: &[Value]) -> u64 {
    lines.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum()
}

#[tokio::test]
async fn each_token_read_is_told_once_and_then_counted() {
    let trail = Trail::new();
    let World { simulator, mut daemon } = World::with(generous(Api::V3), trail.setup()).await;
    let caller = daemon.caller();
    let first = caller.token().await.unwrap();
    for _ in 0..9 {
        caller.token().await.unwrap();
    }
    let mut watch = caller.watch().await.unwrap();
    let watched = soon("a token", watch.message()).await.unwrap().unwrap().token.unwrap();
    assert_eq!(watched.token_id, first.token_id);
    let second = caller.token_for(Duration::ZERO, &first.token_id, None).await.unwrap();
    soon("the next token", watch.message()).await.unwrap().unwrap();
    drop(watch);
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;

    let read = trail.of("token_read");
    assert_eq!(read.len(), 2, "{read:?}");
    for (line, token) in read.iter().zip([&first, &second]) {
        assert_eq!(line["token_id"], token.token_id.as_str());
        assert_eq!(line["caller"]["name"], "tests");
        assert_eq!(line["caller"]["uid"], nix::unistd::getuid().as_raw());
        assert_eq!(line["caller"]["pid"], std::process::id());
        assert_eq!(line["decision"], "allowed");
    }
    assert_eq!(read[0]["method"], "GetAccessToken");
    let again = trail.of("token_reads");
    let of = |token: &str| {
        total(&again.iter().filter(|line| line["token_id"] == token).cloned().collect::<Vec<_>>())
    };
    assert_eq!((of(&first.token_id), of(&second.token_id)), (10, 1));
    assert_eq!(trail.of("token_reported_rejected")[0]["token_id"], first.token_id.as_str());
    let lines = trail.lines();
    assert_eq!(lines[0]["event"], "started");
    assert_eq!(lines.last().unwrap()["event"], "stopped");

    // And none of it is a secret.
    let text = fs::read_to_string(trail.path()).unwrap();
    let settings = simulator.settings();
    for secret in
        [&first.access_token, &second.access_token, &settings.credentials.secret, &settings.callback_secret]
    {
        assert!(!text.contains(secret.as_str()));
    }
}

#[tokio::test]
async fn denials_and_forged_signs_say_who_and_why_and_nothing_of_what_was_sent() {
    if !may_be_others() {
        return;
    }
    let trail = Trail::new();
    let callers = format!(
        "[[caller]]\nname = \"hooks\"\nunix_user = \"{}\"\nallow = [\"VerifySign\", \"VerifySign:message\"]\n",
        nix::unistd::getuid()
    );
    let setup = Setup { callers: Some(callers), ..trail.setup() };
    let World { daemon, .. } = World::with(generous(Api::V3), setup).await;
    let caller = daemon.caller();
    assert_eq!(caller.token().await.refused().reason, "METHOD_NOT_ALLOWED");
    let stranger = Caller::to_as(&daemon.home.socket(), STRANGER);
    assert_eq!(stranger.token().await.refused().reason, "CALLER_UNKNOWN");

    let denied = trail.has("call_denied", |lines| lines.len() == 2).await;
    assert_eq!(denied[0]["caller"]["name"], "hooks");
    assert_eq!(denied[0]["method"], "GetAccessToken");
    assert_eq!(
        (&denied[0]["decision"], &denied[0]["reason"]),
        (&"denied".into(), &"METHOD_NOT_ALLOWED".into())
    );
    assert_eq!(
        denied[1]["caller"],
        serde_json::json!({
            "uid": STRANGER, "gid": nix::unistd::getgid().as_raw(), "pid": std::process::id(),
        })
    );
    assert_eq!(denied[1]["reason"], "CALLER_UNKNOWN");

    let sign = hex(&[0xab; 32]);
    let message = SignedMessage { message: "a planted message".into(), sign: sign.clone() };
    let answer = caller.verify(Subject::SignedMessage(message), None).await.unwrap();
    assert_eq!(answer.verdict(), Verdict::Invalid);
    let forged = trail.has("sign_forged", |lines| lines.len() == 1).await;
    assert_eq!(forged[0]["method"], "VerifySign:message");
    assert_eq!(forged[0]["reason"], "INVALID");
    // Within the same second: counted, and told later.
    let message = SignedMessage { message: "another planted message".into(), sign: sign.clone() };
    caller.verify(Subject::SignedMessage(message), None).await.unwrap();
    trail.has("sign_forged", |lines| total(lines) == 2).await;

    let text = fs::read_to_string(trail.path()).unwrap();
    for planted in ["planted", sign.as_str()] {
        assert!(!text.contains(planted), "{text}");
    }
}

#[tokio::test]
async fn ten_thousand_denials_are_few_lines_and_none_is_forgotten() {
    let trail = Trail::new();
    let setup = Setup { allow: vec!["Health", "Admin:GetStatus"], ..trail.setup() };
    let World { daemon, .. } = World::with(generous(Api::V3), setup).await;
    let since = support::Stopwatch::start();
    let storms = (0..10).map(|_| async {
        let raw = daemon.raw_caller().await;
        for _ in 0..1000 {
            let answer = raw.send(GET_ACCESS_TOKEN, &[], b"").await.unwrap();
            assert_eq!(answer.refused().reason, "METHOD_NOT_ALLOWED");
        }
    });
    futures_util::future::join_all(storms).await;
    let lines = trail.has("call_denied", |lines| total(lines) == 10_000).await;
    let seconds = since.read().as_secs();
    assert!(lines.len() as u64 <= seconds + 3, "{} lines in {seconds} s", lines.len());
    assert_eq!(daemon.log().matches("call_denied").count(), 0, "told once, and not in the log as well");
    let status = daemon.caller().status().await.unwrap();
    let audit = status.audit.unwrap();
    assert_eq!(
        (audit.destination, audit.lost, audit.problem),
        (trail.path().display().to_string(), 0, String::new())
    );
}

#[tokio::test]
async fn without_a_file_the_audit_log_stands_between_the_lines_of_the_log() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &Setup { log_level: "error", ..Setup::default() });
    let daemon = Daemon::spawn(home);
    daemon.logged("\"event\":\"started\"").await;
    daemon.caller().token().await.unwrap();
    daemon.logged("\"event\":\"token_read\"").await;
    for line in daemon.log().lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["log"], "audit", "{line}");
    }
    assert_eq!(daemon.caller().status().await.unwrap().audit.unwrap().destination, "journal");
}

#[tokio::test]
async fn a_full_disk_stops_nothing_and_what_was_lost_is_told_when_there_is_room() {
    let trail = Trail::new();
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    // Room for the first line, and then for a part of one.
    let limit = 1 << 20;
    fs::write(trail.path(), format!("{}\n", "x".repeat(limit - 200))).unwrap();
    let daemon = Daemon::spawn_with_file_limit(Home::new(&simulator, &trail.setup()), limit);
    daemon.logged("\"serving\"").await;
    let caller = daemon.caller();
    let token = caller.token().await.unwrap();
    let next = caller.token_for(Duration::ZERO, &token.token_id, None).await.unwrap();
    assert_ne!(next.token_id, token.token_id);
    daemon.logged("the audit log can't be written").await;
    let full = caller
        .status_where("a loss", |status| status.audit.as_ref().is_some_and(|audit| audit.lost >= 3))
        .await;
    assert!(full.audit.unwrap().problem.contains("File too large"));
    assert_eq!(fs::metadata(trail.path()).unwrap().len(), limit as u64, "half a line is at its end");

    // Somebody makes room, as one does in a hurry.
    fs::OpenOptions::new().write(true).open(trail.path()).unwrap().set_len(limit as u64 - 1000).unwrap();
    let lost = trail.has("audit_lost", |lines| !lines.is_empty()).await;
    daemon.logged("the audit log is written again").await;
    let status =
        caller.status_where("no problem", |status| status.audit.as_ref().unwrap().problem.is_empty()).await;
    assert_eq!(total(&lost), status.audit.unwrap().lost);
    assert!(caller.token().await.is_ok());
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_made_again() {
    let trail = Trail::new();
    let world = World::with(generous(Api::V3), trail.setup()).await;
    trail.has("started", |lines| lines.len() == 1).await;
    fs::rename(trail.path(), trail.folder.path().join("audit.jsonl.1")).unwrap();
    soon("another file", async {
        while !trail.path().exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    world.caller().token().await.unwrap();
    trail.has("token_read", |lines| lines.len() == 1).await;
}

#[tokio::test]
async fn without_its_audit_log_it_does_not_start() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    for (file, exit) in [("/nowhere/at/all/audit.jsonl", 1), ("/dev/full", 78)] {
        let setup = Setup { rest: format!("[audit]\nfile = \"{file}\"\n"), ..Setup::default() };
        let mut daemon = Daemon::spawn(Home::new(&simulator, &setup));
        assert_eq!(daemon.ended().await.code(), Some(exit), "{file}");
        daemon.logged(&format!("audit.file: {file}: ")).await;
    }
    assert_eq!(simulator.calls().len(), 0);
}

#[tokio::test]
async fn who_tries_to_lock_or_unlock_and_may_not_or_makes_no_sense_has_a_line() {
    let trail = Trail::new();
    let World { simulator: _simulator, daemon } = World::with(generous(Api::V3), trail.setup()).await;
    let caller = daemon.caller();
    caller.lockdown(None, "").await.refused();
    caller.lockdown(Some("no body"), "why").await.refused();
    caller.unlock(Some("no body")).await.refused();
    caller.lockdown(Some("tests"), "a test").await.unwrap();
    caller.unlock(None).await.refused();
    let reasons = |lines: &[Value]| -> Vec<_> { lines.iter().map(|line| line["reason"].clone()).collect() };
    let locks = trail.has("lockdown", |lines| lines.len() == 3).await;
    assert_eq!(reasons(&locks), [Value::from("BAD_REQUEST"), "BAD_REQUEST".into(), Value::Null]);
    let unlocks = trail.has("unlock", |lines| lines.len() == 2).await;
    assert_eq!(reasons(&unlocks), ["BAD_REQUEST", "LOCKED_DOWN"]);
    assert!(unlocks.iter().all(|line| line["decision"] == "denied" && line["caller"]["name"] == "tests"));
}

#[tokio::test]
async fn every_security_event_of_the_status_has_its_line() {
    let trail = Trail::new();
    let World { simulator: _simulator, daemon } = World::with(generous(Api::V3), trail.setup()).await;
    let caller = daemon.caller();
    let token = caller.token().await.unwrap();
    caller.token_for(Duration::ZERO, &token.token_id, None).await.unwrap();
    caller.lockdown(None, "a test").await.unwrap();
    caller.unlock(None).await.unwrap();
    caller.reload().await.unwrap();
    let config = fs::read_to_string(daemon.home.config()).unwrap();
    fs::write(daemon.home.config(), format!("{config}\nnonsense = 1\n")).unwrap();
    caller.reload().await.refused();

    let status = caller.status().await.unwrap();
    let words: Vec<_> = status.recent_security_events.iter().map(|event| event.event.clone()).collect();
    for (word, line) in [
        ("token_reported_rejected", "token_reported_rejected"),
        ("locked_down", "lockdown"),
        ("unlocked", "unlock"),
        ("reloaded", "reload"),
        ("reload_refused", "reload"),
    ] {
        assert!(words.iter().any(|known| known == word), "{word}: {words:?}");
        trail.has(line, |lines| !lines.is_empty()).await;
    }
    let reloads = trail.has("reload", |lines| lines.len() == 2).await;
    assert_eq!((&reloads[0]["decision"], &reloads[1]["decision"]), (&"allowed".into(), &"denied".into()));
}

#[tokio::test]
async fn who_finds_no_place_is_told_whether_caller_or_stranger() {
    if !may_be_others() {
        return;
    }
    let trail = Trail::new();
    let mut setup = trail.setup();
    setup.rest += "[limits]\nmax_connections_per_caller = 2\n";
    let World { daemon, .. } = World::with(generous(Api::V3), setup).await;
    let socket = daemon.home.socket();
    // Strangers have four places, however few callers have.
    let mut open = Vec::new();
    loop {
        open.push((
            connect_as(&socket, STRANGER).await.ok(),
            tokio::net::UnixStream::connect(&socket).await.ok(),
        ));
        let denied = trail.of("connection_denied");
        let of = |who: &str, value: Value| denied.iter().any(|line| line["caller"][who] == value);
        if of("name", "tests".into()) && of("uid", STRANGER.into()) {
            assert!(denied.iter().all(|line| line["reason"] == "TOO_MANY_CONNECTIONS"));
            break;
        }
        assert!(open.len() < 5000, "{denied:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_an_operator_does_is_told_and_so_is_who_is_locked_out() {
    let trail = Trail::new();
    let world = World::with(generous(Api::V3), trail.setup()).await;
    let caller = world.caller();
    caller.token().await.unwrap();
    caller.lockdown(None, "a key was stolen").await.unwrap();
    for _ in 0..3 {
        assert_eq!(caller.token().await.refused().reason, "LOCKED_DOWN");
        assert_eq!(caller.watch().await.err().unwrap().reason, "LOCKED_DOWN");
    }
    caller.unlock(None).await.unwrap();
    caller.lockdown(Some("nobody"), "a mistake").await.refused();
    caller.reload().await.unwrap();

    let denied = trail.has("call_denied", |lines| total(lines) == 6).await;
    assert_eq!(denied[0]["reason"], "LOCKED_DOWN");
    assert_eq!(denied[0]["caller"]["name"], "tests");
    assert!(denied[0]["detail"].as_str().unwrap().contains("a key was stolen"));
    let locks = trail.has("lockdown", |lines| lines.len() == 2).await;
    assert_eq!((&locks[0]["decision"], &locks[1]["decision"]), (&"allowed".into(), &"denied".into()));
    assert_eq!(locks[0]["caller"]["uid"], nix::unistd::getuid().as_raw());
    assert_eq!(trail.has("unlock", |lines| lines.len() == 1).await[0]["method"], "Admin:Unlock");
    let reload = trail.has("reload", |lines| lines.len() == 1).await;
    assert_eq!((&reload[0]["decision"], &reload[0]["caller"]["name"]), (&"allowed".into(), &"tests".into()));
}
