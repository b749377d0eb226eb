//! The status for people: the answer to "is it well?" first, then what it rests on.

use std::fmt::Write;

use jiff::Timestamp;

use super::report::{Budget, Caller, Lock, Report};
use crate::cli::{
    layout::{Cell, Table, bar, moment, relative, span},
    output::{Look, Tone},
};

/// How wide the budget's bar is.
const BAR: u32 = 15;

/// The report at the time `now`.
pub(super) fn text(report: &Report, now: Timestamp, look: Look) -> String {
    let mut text = headline(report, now, look);
    for lock in &report.locks {
        let _ = writeln!(text, "  {}", look.paint(Tone::Bad, &lock_in_words(lock, now)));
    }
    if !report.locks_problem.is_empty() {
        let problem = format!("the locks on the disk are others: {}", report.locks_problem);
        let _ = writeln!(text, "  {}", look.paint(Tone::Warning, &problem));
    }
    text.push('\n');
    text.push_str(&facts(report, now, look).render(2, look));
    if !report.callers.is_empty() {
        text.push('\n');
        text.push_str(&callers(&report.callers, now).render(2, look));
    }
    if report.callers.iter().any(|caller| !caller.held_tokens.is_empty()) {
        text.push('\n');
        text.push_str(&holders(&report.callers, now).render(2, look));
    }
    if !report.recent_security_events.is_empty() {
        // Writing to a String can't fail.
        let _ = write!(text, "\n  {}\n", look.paint(Tone::Bad, "SECURITY EVENTS"));
        let mut events = Table::default();
        for event in &report.recent_security_events {
            let event_at = event.at.map(|at| when(at, now)).unwrap_or_default();
            events.row([
                event_at.into(),
                Cell::toned(event.event.as_str(), Tone::Strong),
                event.detail.as_str().into(),
            ]);
        }
        text.push_str(&events.render(2, look));
    }
    text
}

fn headline(report: &Report, now: Timestamp, look: Look) -> String {
    let (mark, tone) = match report.state {
        "FRESH" => ("●", Tone::Good),
        "STARTING" | "DEGRADED" => ("▲", Tone::Warning),
        _ => ("■", Tone::Bad),
    };
    let mark = if look.terminal { format!("{} ", look.paint(tone, mark)) } else { String::new() };
    let ready = if report.ready {
        look.paint(Tone::Good, "ready")
    } else {
        look.paint(Tone::Bad, "not ready: no token can be handed out")
    };
    let since = report.since.map(|since| format!(", since {}", when(since, now))).unwrap_or_default();
    let mut text = format!("{mark}{}, {ready}{since}\n", look.paint(tone, report.state));
    // Under lockdown the lock says it.
    if !report.reason.is_empty() && report.state != "LOCKED_DOWN" {
        let _ = writeln!(text, "  {}", report.reason);
    }
    text
}

fn facts(report: &Report, now: Timestamp, look: Look) -> Table {
    let mut table = Table::default();
    let mut fact = |name: &str, value: String| table.row([Cell::toned(name, Tone::Faint), value.into()]);
    let maybe_when = |at: Option<Timestamp>| at.map_or_else(|| "unknown".to_owned(), |at| when(at, now));

    match &report.token {
        None => fact("token", "none".to_owned()),
        Some(token) => {
            let lifetime = token.lifetime.map(|lifetime| format!(", granted for {}", span(lifetime.0)));
            fact("token", format!("{}{}", token.token_id, lifetime.unwrap_or_default()));
            fact("issued", maybe_when(token.issued_at));
            fact("refresh", maybe_when(token.next_refresh_at));
            let floor = token.floor.map(|floor| format!(", handed out until {} before", span(floor.0)));
            fact("expires", format!("{}{}", maybe_when(token.expires_at), floor.unwrap_or_default()));
        }
    }
    if let Some(budget) = &report.budget {
        fact("budget", budget_in_words(budget, look));
        if !budget.problem.is_empty() {
            fact("", look.paint(Tone::Warning, &budget.problem));
        }
    }
    fact("upstream", format!("{} ({})", report.base_url, report.api_version));
    match &report.last_upstream_outcome {
        None => fact("last call", "none yet".to_owned()),
        Some(call) => {
            let tone = if call.outcome == "ok" { Tone::Good } else { Tone::Warning };
            let took = call.duration.map(|took| format!(", took {}", span(took.0))).unwrap_or_default();
            fact("last call", format!("{}, {}{took}", look.paint(tone, &call.outcome), maybe_when(call.at)));
            if !call.detail.is_empty() {
                fact("", call.detail.clone());
            }
        }
    }
    if let Some(credentials) = &report.credentials {
        fact("credentials", format!("generation {}", credentials.generation));
        for source in &credentials.sources {
            fact("", format!("{}: {}", source.name, source.path));
        }
        if let Some(until) = credentials.previous_until {
            fact("", format!("signs of the previous ones are accepted until {}", when(until, now)));
        }
    }
    for (place, certificate) in report.certificates.iter().enumerate() {
        let until = certificate.not_after.map_or_else(|| "never".to_owned(), |until| when(until, now));
        let name = if place == 0 { "certificate" } else { "" };
        fact(name, format!("{}: {}, ends {until}", certificate.path, certificate.names.join(", ")));
        if !certificate.problem.is_empty() {
            fact("", look.paint(Tone::Warning, &certificate.problem));
        }
    }
    if let Some(audit) = &report.audit {
        let lost = (audit.lost > 0).then(|| format!("{} lines lost", audit.lost));
        let lost = lost.map(|lost| format!(", {}", look.paint(Tone::Warning, &lost))).unwrap_or_default();
        fact("audit log", format!("{}{lost}", audit.destination));
        if !audit.problem.is_empty() {
            fact("", look.paint(Tone::Bad, &audit.problem));
        }
    }
    let uptime = report.uptime.map(|uptime| format!(", up {}", span(uptime.0))).unwrap_or_default();
    fact("broker", format!("version {}{uptime}", report.version));
    table
}

fn budget_in_words(budget: &Budget, look: Look) -> String {
    let Budget { limit, used, available, .. } = budget;
    let window = budget.window.map(|window| format!(" in {}", span(window.0))).unwrap_or_default();
    let words = format!("{used} of {limit} calls used{window}, {available} could be made at once");
    if look.terminal { format!("{} {words}", bar(*used, *limit, BAR)) } else { words }
}

fn callers(callers: &[Caller], now: Timestamp) -> Table {
    let mut table = Table::default();
    let heading = |text: &str| Cell::toned(text, Tone::Strong);
    table.row([
        heading("CALLER"),
        heading("METHOD"),
        heading("OK").at_the_right(),
        heading("FAILED").at_the_right(),
        heading("LAST TOKEN"),
        heading("GIVEN"),
    ]);
    for caller in callers {
        let given = caller.last_token_at.map(|at| relative(at, now)).unwrap_or_default();
        let mut last = [caller.last_token_id.clone(), given].map(Cell::from);
        let mut name = caller.name.as_str();
        if caller.calls.is_empty() {
            let [token, given] = last;
            table.row([name.into(), "-".into(), "".into(), "".into(), token, given]);
            continue;
        }
        for calls in &caller.calls {
            let [token, given] = std::mem::replace(&mut last, [Cell::from(""), Cell::from("")]);
            let failed = Cell::number(calls.failed);
            let failed = if calls.failed > 0 { failed.in_tone(Tone::Warning) } else { failed };
            table.row([
                std::mem::take(&mut name).into(),
                calls.method.as_str().into(),
                Cell::number(calls.ok),
                failed,
                token,
                given,
            ]);
        }
    }
    table
}

fn lock_in_words(lock: &Lock, now: Timestamp) -> String {
    let whom = lock.caller.as_ref().map_or_else(|| "everyone".to_owned(), |name| format!("caller {name}"));
    let since = lock.since.map(|since| format!(" since {}", when(since, now))).unwrap_or_default();
    format!("locked: {whom},{since}, by {}: {}", lock.locked_by, lock.reason)
}

/// Who holds which token, for as long as it lasts.
fn holders(callers: &[Caller], now: Timestamp) -> Table {
    let mut table = Table::default();
    let heading = |text: &str| Cell::toned(text, Tone::Strong);
    table.row([heading("HOLDS"), heading("TOKEN"), heading("GIVEN"), heading("ENDS")]);
    for caller in callers {
        let mut name = caller.name.as_str();
        for held in &caller.held_tokens {
            let moment = |at: Option<Timestamp>| at.map(|at| relative(at, now)).unwrap_or_default();
            table.row([
                std::mem::take(&mut name).into(),
                held.token_id.as_str().into(),
                moment(held.given_at).into(),
                moment(held.expires_at).into(),
            ]);
        }
    }
    table
}

fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", relative(at, now), moment(at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::{
        layout::json_line,
        status::report::{
            Audit, Calls, Certificate, Credentials, Event, Held, Outcome, Seconds, Source, Token,
        },
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    fn now() -> Timestamp {
        at(0)
    }

    fn report() -> Report {
        let seconds = |seconds| Some(Seconds(Duration::from_secs(seconds)));
        Report {
            state: "FRESH",
            ready: true,
            since: Some(at(-7_300)),
            reason: String::new(),
            token: Some(Token {
                token_id: "ba7816bf8f01cfea".to_owned(),
                issued_at: Some(at(-300)),
                expires_at: Some(at(600)),
                next_refresh_at: Some(at(300)),
                lifetime: seconds(900),
                floor: seconds(10),
            }),
            budget: Some(Budget {
                limit: 15,
                window: seconds(60),
                used: 2,
                available: 3,
                problem: String::new(),
            }),
            last_upstream_outcome: Some(Outcome {
                outcome: "ok".to_owned(),
                detail: String::new(),
                at: Some(at(-300)),
                duration: Some(Seconds(Duration::from_millis(212))),
            }),
            credentials: Some(Credentials {
                generation: 1,
                sources: vec![Source { name: "key_file".to_owned(), path: "/etc/broker/api-key".to_owned() }],
                previous_until: None,
            }),
            base_url: "https://v3.api.b2binpay.com".to_owned(),
            api_version: "v3".to_owned(),
            uptime: seconds(7_300),
            version: "0.1.0".to_owned(),
            locks: Vec::new(),
            locks_problem: String::new(),
            callers: vec![
                Caller {
                    name: "payouts".to_owned(),
                    calls: vec![
                        Calls { method: "GetAccessToken".to_owned(), ok: 120, failed: 1 },
                        Calls { method: "VerifySign".to_owned(), ok: 7, failed: 0 },
                    ],
                    last_token_id: "ba7816bf8f01cfea".to_owned(),
                    last_token_at: Some(at(-290)),
                    held_tokens: vec![Held {
                        token_id: "ba7816bf8f01cfea".to_owned(),
                        given_at: Some(at(-290)),
                        expires_at: Some(at(600)),
                    }],
                },
                Caller {
                    name: "ops".to_owned(),
                    calls: Vec::new(),
                    last_token_id: String::new(),
                    last_token_at: None,
                    held_tokens: Vec::new(),
                },
            ],
            recent_security_events: Vec::new(),
            certificates: vec![Certificate {
                role: "SERVER",
                path: "/etc/b/server.pem".to_owned(),
                names: vec!["broker.example.org".to_owned()],
                not_before: Some(at(-86_400)),
                not_after: Some(at(600)),
                state: "ENDS_SOON",
                problem: "the server certificate ends soon".to_owned(),
            }],
            audit: Some(Audit { destination: "journal".to_owned(), lost: 0, problem: String::new() }),
        }
    }

    const PLAIN: &str = "\
FRESH, ready, since 2h 1m ago (2026-11-18 09:05:00Z)

  token        ba7816bf8f01cfea, granted for 15m
  issued       5m ago (2026-11-18 11:01:40Z)
  refresh      in 5m (2026-11-18 11:11:40Z)
  expires      in 10m (2026-11-18 11:16:40Z), handed out until 10s before
  budget       2 of 15 calls used in 1m, 3 could be made at once
  upstream     https://v3.api.b2binpay.com (v3)
  last call    ok, 5m ago (2026-11-18 11:01:40Z), took 212ms
  credentials  generation 1
               key_file: /etc/broker/api-key
  certificate  /etc/b/server.pem: broker.example.org, ends in 10m (2026-11-18 11:16:40Z)
               the server certificate ends soon
  audit log    journal
  broker       version 0.1.0, up 2h 1m

  CALLER   METHOD           OK  FAILED  LAST TOKEN        GIVEN
  payouts  GetAccessToken  120       1  ba7816bf8f01cfea  4m 50s ago
           VerifySign        7       0
  ops      -

  HOLDS    TOKEN             GIVEN       ENDS
  payouts  ba7816bf8f01cfea  4m 50s ago  in 10m
";

    #[test]
    fn a_healthy_broker_in_plain_text() {
        assert_eq!(text(&report(), now(), Look::PLAIN), PLAIN);
    }

    #[test]
    fn a_terminal_without_colour_gets_marks_and_a_bar_but_no_escapes() {
        let text = text(&report(), now(), Look { terminal: true, colour: false });
        assert!(text.starts_with("● FRESH, ready"), "{text}");
        assert!(text.contains("██░░░░░░░░░░░░░ 2 of 15"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn locks_are_told_first_with_who_why_and_whether_they_last() {
        let mut report = report();
        (report.state, report.ready, report.token) = ("LOCKED_DOWN", false, None);
        "locked by ops: stolen laptop".clone_into(&mut report.reason);
        let lock = |caller: Option<&str>| Lock {
            caller: caller.map(str::to_owned),
            since: Some(at(-60)),
            reason: "stolen laptop".to_owned(),
            locked_by: "ops".to_owned(),
        };
        report.locks = vec![lock(None), lock(Some("payouts"))];
        "/var/lib: can't write".clone_into(&mut report.locks_problem);
        let text = text(&report, now(), Look::PLAIN);
        let lines: Vec<_> = text.lines().skip(1).take(3).collect();
        assert_eq!(
            lines,
            [
                "  locked: everyone, since 1m ago (2026-11-18 11:05:40Z), by ops: stolen laptop",
                "  locked: caller payouts, since 1m ago (2026-11-18 11:05:40Z), by ops: stolen laptop",
                "  the locks on the disk are others: /var/lib: can't write"
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&json_line(&report)).unwrap();
        assert_eq!(json["locks"][0]["caller"], serde_json::Value::Null);
        assert_eq!(json["locks"][1]["locked_by"], "ops");
        let documented = include_str!("../../../docs/status-json.md");
        for name in ["locks", "locks_problem", "caller", "locked_by", "held_tokens", "given_at"] {
            assert!(documented.contains(&format!("`{name}`")), "docs/status-json.md says nothing of {name}");
        }
    }

    #[test]
    fn trouble_is_told_first_and_with_its_reason() {
        let mut report = report();
        (report.state, report.ready, report.token) = ("CREDENTIALS_REJECTED", false, None);
        "the upstream rejects the credentials (400, 2006)".clone_into(&mut report.reason);
        if let Some(budget) = &mut report.budget {
            "/var/lib: can't open".clone_into(&mut budget.problem);
        }
        let problem = "/var/log/audit.jsonl: no space left on device".to_owned();
        report.audit = Some(Audit { destination: "/var/log/audit.jsonl".to_owned(), lost: 3, problem });
        report.recent_security_events = vec![Event {
            at: Some(at(-60)),
            event: "foreign_traffic".to_owned(),
            detail: "something else uses the same address".to_owned(),
        }];
        let text = text(&report, now(), Look::PLAIN);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "CREDENTIALS_REJECTED, not ready: no token can be handed out, since 2h 1m ago (2026-11-18 09:05:00Z)",
                "  the upstream rejects the credentials (400, 2006)"
            ]
        );
        assert!(lines.contains(&"  token        none"), "{text}");
        assert!(lines.contains(&"               /var/lib: can't open"), "{text}");
        assert!(text.contains("  audit log    /var/log/audit.jsonl, 3 lines lost\n"), "{text}");
        assert!(lines.contains(&"               /var/log/audit.jsonl: no space left on device"), "{text}");
        let event = "  1m ago (2026-11-18 11:05:40Z)  foreign_traffic  something else uses the same address";
        assert_eq!(lines[lines.len() - 2..], ["  SECURITY EVENTS", event]);
    }

    /// The names of all members, however deep.
    fn names(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    found.push(name.clone());
                    names(value, found);
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_json_has_the_names_of_its_documentation() {
        let json: serde_json::Value = serde_json::from_str(&json_line(&report())).unwrap();
        assert_eq!(json["state"], "FRESH");
        assert_eq!(json["token"]["expires_at"], "2026-11-18T11:16:40Z");
        assert_eq!(json["token"]["lifetime_seconds"], 900.0);
        assert_eq!(json["budget"]["window_seconds"], 60.0);
        assert_eq!(json["last_upstream_outcome"]["duration_seconds"], 0.212);
        assert_eq!(json["credentials"]["previous_until"], serde_json::Value::Null);
        assert_eq!(json["callers"][0]["calls"][0]["failed"], 1);
        let documented = include_str!("../../../docs/status-json.md");
        let mut found = Vec::new();
        names(&json, &mut found);
        for name in found {
            assert!(documented.contains(&format!("`{name}`")), "docs/status-json.md says nothing of {name}");
        }
    }
}
