//! Sentences about the keeper.

use jiff::Timestamp;

use super::*;
use crate::keeper::{attempt::Outcome, timing::TooLong, waiting::RefusalReason};
use crate::lockdown::{Lock, Scope};
use crate::token::{AccessToken, Grant, ServerClock};

const SETTINGS: TokenSettings = TokenSettings {
    refresh_at: 0.67,
    min_validity: Duration::from_secs(10),
    request_timeout: Duration::from_secs(10),
};

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A core, a hand-moved clock, and what the core asked for so far.
struct Rig {
    core: Core,
    now: Now,
    begun: Option<Attempt>,
    tries: Vec<&'static str>,
    answers: Vec<(u64, Result<TokenId, Refusal>)>,
    alarms: Vec<SecurityEvent>,
    conclusions: Vec<(u64, Result<TokenId, NotReplaced>)>,
    in_force: Vec<(u64, Replaced)>,
    snapshot: TokenSnapshot,
    next_token: u32,
    next_waiter: u64,
    v2: bool,
}

impl Rig {
    fn new() -> Self {
        let boot = BootInstant::since_boot(secs(1000.0));
        let now = Now { boot, wall: Timestamp::UNIX_EPOCH + secs(1000.0) };
        let core = Core::new(SETTINGS, Arc::default(), 7, now);
        let snapshot = core.snapshot();
        let mut rig = Self {
            core,
            now,
            begun: None,
            tries: Vec::new(),
            answers: Vec::new(),
            alarms: Vec::new(),
            conclusions: Vec::new(),
            in_force: Vec::new(),
            snapshot,
            next_token: 0,
            next_waiter: 0,
            v2: false,
        };
        rig.turns();
        rig
    }

    /// A rig whose first login gave a token of this lifetime, in seconds.
    fn with_token(lifetime: f64) -> Self {
        let mut rig = Self::new();
        rig.grants(lifetime);
        rig
    }

    fn with_v2_token(lifetime: f64) -> Self {
        let mut rig = Self::new();
        rig.v2 = true;
        rig.grants(lifetime);
        rig
    }

    fn happens(&mut self, event: Event) {
        self.core.take_in(event, self.now);
        self.turns();
    }

    fn turns(&mut self) {
        for action in self.core.settle(self.now) {
            match action {
                Action::Begin(attempt) => {
                    assert!(self.begun.is_none(), "two tries at a time");
                    self.tries.push(attempt.kind.word());
                    self.begun = Some(attempt);
                }
                Action::Answer(id, answer) => self.answers.push((id.0, answer.map(|token| token.id()))),
                Action::Conclude(id, outcome) => self.conclusions.push((id.0, outcome)),
                Action::Adopt(id, replaced) => self.in_force.push((id.0, replaced)),
                Action::Alarm(event) => self.alarms.push(event),
                Action::Publish(snapshot) => self.snapshot = snapshot,
                Action::Tell(_) => {}
            }
        }
    }

    /// Time goes by, with every turn that the core asks for.
    fn pass(&mut self, seconds: f64) {
        let end = self.now.boot + secs(seconds);
        while let Some(at) = self.core.wake_at(self.now.boot).filter(|at| *at <= end) {
            let step = at.saturating_since(self.now.boot).max(Duration::from_nanos(1));
            self.advance(step);
            self.turns();
            if self.begun.is_some() {
                break;
            }
        }
        self.advance(end.saturating_since(self.now.boot));
    }

    fn advance(&mut self, by: Duration) {
        self.now = Now { boot: self.now.boot + by, wall: self.now.wall + by };
    }

    /// Time goes by until the core begins a try; how much.
    fn pass_until_try(&mut self) -> Duration {
        let start = self.now.boot;
        while self.begun.is_none() {
            let at = self.core.wake_at(self.now.boot).expect("the core never wakes");
            self.advance(at.saturating_since(self.now.boot));
            self.turns();
        }
        self.now.boot.saturating_since(start)
    }

    fn ends(&mut self, outcome: Outcome) {
        let attempt = self.begun.take().expect("no try is under way");
        self.happens(Event::Ended(AttemptEnd { kind: attempt.kind, outcome, budget_problem: None }));
    }

    fn grants(&mut self, lifetime: f64) -> TokenId {
        self.next_token += 1;
        let access = AccessToken::parse(format!("token-{}", self.next_token).into()).unwrap();
        let id = access.id();
        let refresh = self.v2.then(|| RefreshToken {
            secret: format!("refresh-{}", self.next_token).into(),
            expires_at: self.now.boot + secs(lifetime * 10.0),
            server_clock: ServerClock { boot: self.now.boot, server: self.now.wall },
        });
        let grant = Grant { access, asked_at: self.now.boot, lifetime: secs(lifetime), refresh };
        self.ends(Outcome::Called { result: Ok(grant), took: secs(0.1) });
        id
    }

    fn fails(&mut self, error: IssueError) {
        self.ends(Outcome::Called { result: Err(error), took: secs(0.1) });
    }

    fn no_turn_for(&mut self, seconds: f64) {
        self.ends(Outcome::NoTurn(self.now.boot + secs(seconds)));
    }

    fn wants(&mut self, want: Want) -> u64 {
        self.next_waiter += 1;
        self.happens(Event::Wanted(WaiterId(self.next_waiter), want));
        self.next_waiter
    }

    /// Proposes to replace what is in force, with tokens whose floor is this many seconds.
    fn proposes(&mut self, floor: f64) -> u64 {
        self.next_waiter += 1;
        let settings = TokenSettings { min_validity: secs(floor), ..SETTINGS };
        let proposal = Proposal::new(ReplacementId(self.next_waiter), settings, None, self.now.boot);
        self.happens(Event::Proposed(proposal));
        self.next_waiter
    }

    fn locks(&mut self, scope: &Scope) {
        let lock = Lock { since: self.now.wall, reason: "stolen laptop".parse().unwrap(), by: "ops".into() };
        let locks = Locks::clone(&self.core.locks).with(scope, lock);
        self.happens(Event::Locked(Arc::new(locks)));
    }

    fn unlocks(&mut self, scope: &Scope) {
        let locks = Locks::clone(&self.core.locks).without(scope);
        self.happens(Event::Locked(Arc::new(locks)));
    }

    fn adopts(&mut self, replacement: u64) {
        self.happens(Event::Adopted(ReplacementId(replacement)));
    }

    fn takes_back(&mut self, replacement: u64) {
        self.happens(Event::Withdrawn(ReplacementId(replacement)));
    }

    /// What it is now that it is in force.
    fn adopted(&self, replacement: u64) -> Option<Replaced> {
        self.in_force.iter().find(|(id, _)| *id == replacement).map(|(_, replaced)| *replaced)
    }

    fn conclusion(&self, replacement: u64) -> Option<&Result<TokenId, NotReplaced>> {
        self.conclusions.iter().find(|(id, _)| *id == replacement).map(|(_, outcome)| outcome)
    }

    fn answer(&self, waiter: u64) -> Option<&Result<TokenId, Refusal>> {
        self.answers.iter().find(|(id, _)| *id == waiter).map(|(_, answer)| answer)
    }

    fn refusal(&self, waiter: u64) -> Option<&RefusalReason> {
        self.answer(waiter).map(|answer| &answer.as_ref().expect_err("it got a token").reason)
    }

    fn state(&self) -> KeeperState {
        self.snapshot.state(self.now).0
    }

    fn current(&self) -> Option<TokenId> {
        self.snapshot.token_for(Duration::ZERO, self.now.boot).map(|token| token.id())
    }

    fn rejects(&self, caller: &str) -> Want {
        Want { caller: caller.parse().unwrap(), rejected: self.current(), ..any() }
    }
}

/// Any token that may be handed out.
fn any() -> Want {
    Want { caller: "a".parse().unwrap(), min_validity: Duration::ZERO, rejected: None, deadline: None }
}

fn lost() -> IssueError {
    IssueError::AnswerLost { detail: "timed out".into() }
}

fn not_sent() -> IssueError {
    IssueError::NotSent { detail: "connection refused".into() }
}

fn wrong_credentials() -> IssueError {
    IssueError::CredentialsRejected { detail: "400, code 2006".into() }
}

// ---- the schedule

#[test]
fn it_logs_in_at_once() {
    let rig = Rig::new();
    assert_eq!((rig.tries.as_slice(), rig.state()), (["login"].as_slice(), KeeperState::Starting));
}

#[test]
fn it_renews_at_the_fraction_of_the_granted_lifetime() {
    for lifetime in [20.0, 60.0, 900.0, 3600.0] {
        let mut rig = Rig::with_token(lifetime);
        let waited = rig.pass_until_try().as_secs_f64() / lifetime;
        assert!((0.65..0.69).contains(&waited), "{waited} of {lifetime}");
    }
}

#[test]
fn v3_logs_in_again_and_v2_refreshes() {
    let mut v3 = Rig::with_token(60.0);
    v3.pass_until_try();
    assert_eq!(v3.tries, ["login", "login"]);
    let mut v2 = Rig::with_v2_token(60.0);
    v2.pass_until_try();
    assert_eq!(v2.tries, ["login", "refresh"]);
}

#[test]
fn an_expired_refresh_token_is_not_presented() {
    let mut rig = Rig::with_v2_token(60.0);
    // A suspend of an hour.
    rig.advance(secs(3600.0));
    rig.turns();
    assert_eq!(rig.tries, ["login", "login"]);
}

#[test]
fn one_try_at_a_time_however_many_call() {
    let mut rig = Rig::new();
    let waiters: Vec<_> = (0..100).map(|_| rig.wants(any())).collect();
    assert_eq!(rig.tries.len(), 1);
    let token = rig.grants(60.0);
    assert!(waiters.into_iter().all(|waiter| rig.answer(waiter) == Some(&Ok(token))));
}

#[test]
fn a_try_may_last_half_of_what_is_left_to_the_floor() {
    let mut rig = Rig::with_token(60.0);
    rig.pass_until_try();
    let left = rig.snapshot.token.as_ref().unwrap().handed_out_until().saturating_since(rig.now.boot);
    assert_eq!(rig.begun.as_ref().unwrap().patience, left / 2);
    assert_eq!(Rig::new().begun.unwrap().patience, secs(4.0));
}

#[test]
fn tokens_of_five_seconds_are_taken_and_renewed() {
    let mut rig = Rig::with_token(5.0);
    assert_eq!(rig.state(), KeeperState::Fresh);
    assert!(rig.pass_until_try() < secs(3.75));
}

// ---- failures

#[test]
fn a_failed_renewal_keeps_the_good_token() {
    let mut rig = Rig::with_token(60.0);
    let token = rig.current();
    rig.pass_until_try();
    rig.fails(lost());
    assert_eq!((rig.state(), rig.current()), (KeeperState::Degraded, token));
    rig.pass_until_try();
    rig.grants(60.0);
    assert_eq!(rig.state(), KeeperState::Fresh);
}

#[test]
fn it_tries_for_ever_and_recovers_by_itself() {
    let mut rig = Rig::with_token(60.0);
    for _ in 0..500 {
        let paused = rig.pass_until_try();
        assert!(rig.tries.len() == 2 || paused <= secs(5.0), "{paused:?}");
        rig.fails(IssueError::Failed { status: 502, detail: String::new() });
    }
    assert_eq!(rig.state(), KeeperState::Expired);
    assert_eq!(rig.current(), None);
    rig.pass_until_try();
    rig.grants(60.0);
    assert_eq!(rig.state(), KeeperState::Fresh);
}

#[test]
fn wrong_credentials_keep_the_token_and_pause_for_long() {
    let mut rig = Rig::with_token(3600.0);
    rig.pass_until_try();
    rig.fails(wrong_credentials());
    assert_eq!(rig.state(), KeeperState::CredentialsRejected);
    assert!(rig.current().is_some());
    assert!(rig.pass_until_try() >= secs(10.0));
    rig.grants(3600.0);
    assert_eq!(rig.state(), KeeperState::Fresh);
}

#[test]
fn a_forbidden_address_is_its_own_state() {
    let mut rig = Rig::new();
    rig.fails(IssueError::Forbidden { detail: "403, code 2016".into() });
    assert_eq!(rig.state(), KeeperState::UpstreamForbidden);
}

#[test]
fn retry_after_is_obeyed() {
    let mut rig = Rig::with_token(60.0);
    rig.pass_until_try();
    rig.fails(IssueError::Throttled { retry_after: Some(secs(9.0)) });
    assert!(rig.pass_until_try() >= secs(9.0));
    assert_eq!(rig.alarms, [SecurityEvent::ForeignTraffic]);
}

#[test]
fn a_token_that_lapses_is_expired_whether_or_not_the_keeper_turns() {
    let mut rig = Rig::with_token(60.0);
    rig.advance(secs(50.0));
    assert_eq!(rig.state(), KeeperState::Fresh);
    assert!(rig.current().is_some(), "ten seconds are left, which is the floor");
    rig.advance(Duration::from_nanos(1));
    assert_eq!((rig.state(), rig.current()), (KeeperState::Expired, None));
}

#[test]
fn a_record_that_cannot_be_kept_degrades() {
    let mut rig = Rig::with_token(60.0);
    rig.pass_until_try();
    let attempt = rig.begun.take().unwrap();
    let grant = Grant {
        access: AccessToken::parse("next".to_owned().into()).unwrap(),
        asked_at: rig.now.boot,
        lifetime: secs(60.0),
        refresh: None,
    };
    let outcome = Outcome::Called { result: Ok(grant), took: secs(0.1) };
    let budget_problem = Some("disk full".to_owned());
    rig.happens(Event::Ended(AttemptEnd { kind: attempt.kind, outcome, budget_problem }));
    let (state, _, reason) = rig.snapshot.state(rig.now);
    assert_eq!(state, KeeperState::Degraded);
    assert!(reason.contains("disk full"), "{reason}");
}

// ---- v2's refresh tokens

#[test]
fn a_refresh_that_was_surely_not_sent_is_tried_again_with_the_same_token() {
    for error in [not_sent(), IssueError::Throttled { retry_after: None }] {
        let mut rig = Rig::with_v2_token(60.0);
        rig.pass_until_try();
        rig.fails(error);
        rig.pass_until_try();
        assert_eq!(rig.tries, ["login", "refresh", "refresh"]);
    }
}

#[test]
fn a_refresh_without_a_turn_is_tried_again_with_the_same_token() {
    let mut rig = Rig::with_v2_token(60.0);
    rig.pass_until_try();
    rig.no_turn_for(3.0);
    assert_eq!(rig.pass_until_try(), secs(3.0));
    assert_eq!(rig.tries, ["login", "refresh", "refresh"]);
}

#[test]
fn a_refresh_that_may_have_been_spent_is_never_presented_again() {
    let unusable = IssueError::Unusable { detail: "empty".into() };
    for error in [lost(), unusable, IssueError::Failed { status: 502, detail: String::new() }] {
        let mut rig = Rig::with_v2_token(60.0);
        rig.pass_until_try();
        rig.fails(error);
        rig.pass_until_try();
        assert_eq!(rig.tries, ["login", "refresh", "login"]);
        assert_eq!(rig.alarms, []);
    }
}

#[test]
fn a_refused_refresh_token_is_suspicious_and_followed_by_a_login_at_once() {
    let mut rig = Rig::with_v2_token(60.0);
    rig.pass_until_try();
    rig.fails(IssueError::RefreshTokenRejected { detail: "401, code 2007".into() });
    assert_eq!(rig.tries, ["login", "refresh", "login"]);
    assert_eq!(rig.alarms, [SecurityEvent::RefreshTokenSuspicious]);
    assert_eq!(rig.state(), KeeperState::Fresh);
}

#[test]
fn a_refresh_token_that_ended_on_the_way_is_not_suspicious() {
    let mut rig = Rig::with_v2_token(60.0);
    rig.pass_until_try();
    rig.advance(secs(3600.0));
    rig.fails(IssueError::RefreshTokenRejected { detail: "401, code 2007".into() });
    assert_eq!(rig.alarms, []);
}

#[test]
fn a_wrong_sign_is_an_alarm() {
    let mut rig = Rig::new();
    rig.fails(IssueError::WrongSign);
    assert_eq!(rig.alarms, [SecurityEvent::UpstreamSignWrong]);
}

// ---- calls that wait

#[test]
fn a_call_is_answered_when_a_try_that_began_after_it_has_failed() {
    let mut rig = Rig::new();
    let early = rig.wants(any());
    rig.fails(lost());
    assert_eq!(rig.refusal(early), None, "that try had begun before it");
    rig.pass_until_try();
    rig.fails(lost());
    assert_eq!(rig.refusal(early), Some(&RefusalReason::Upstream(lost())));
}

#[test]
fn a_call_is_answered_at_once_when_no_try_may_begin_before_its_deadline() {
    let mut rig = Rig::new();
    rig.no_turn_for(6.0);
    let short = rig.wants(Want { deadline: Some(rig.now.boot + secs(5.0)), ..any() });
    let long = rig.wants(Want { deadline: Some(rig.now.boot + secs(7.0)), ..any() });
    assert_eq!(rig.refusal(short), Some(&RefusalReason::BudgetExhausted));
    assert_eq!(rig.answer(short).unwrap().as_ref().unwrap_err().retry_after, Some(secs(6.0)));
    assert_eq!(rig.answer(long), None);
}

#[test]
fn a_call_while_the_credentials_are_wrong_is_answered_at_once_and_with_no_promise() {
    let mut rig = Rig::new();
    rig.fails(wrong_credentials());
    let waiter = rig.wants(any());
    let refusal = rig.answer(waiter).unwrap().as_ref().unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Upstream(wrong_credentials()));
    assert_eq!(refusal.retry_after, None);
}

#[test]
fn a_call_is_answered_fifty_milliseconds_before_its_deadline() {
    let mut rig = Rig::new();
    let waiter = rig.wants(Want { deadline: Some(rig.now.boot + secs(2.0)), ..any() });
    rig.pass(1.949);
    assert_eq!(rig.answer(waiter), None);
    rig.pass(0.001);
    assert_eq!(rig.refusal(waiter), Some(&RefusalReason::Starting));
}

#[test]
fn a_call_without_a_deadline_waits_ten_seconds() {
    let mut rig = Rig::with_token(60.0);
    rig.advance(secs(61.0));
    rig.turns();
    let waiter = rig.wants(any());
    rig.pass(9.999);
    assert_eq!(rig.answer(waiter), None);
    rig.pass(0.001);
    assert_eq!(rig.refusal(waiter), Some(&RefusalReason::Slow));
}

#[test]
fn a_deadline_that_has_all_but_passed_is_told_so() {
    let mut rig = Rig::new();
    let waiter = rig.wants(Want { deadline: Some(rig.now.boot + secs(0.05)), ..any() });
    assert_eq!(rig.refusal(waiter), Some(&RefusalReason::DeadlineTooShort));
}

#[test]
fn more_than_nine_tenths_of_the_lifetime_is_refused() {
    let mut rig = Rig::with_token(60.0);
    let waiter = rig.wants(Want { min_validity: secs(54.1), ..any() });
    let longest = secs(54.0);
    assert_eq!(rig.refusal(waiter), Some(&RefusalReason::ValidityTooLong(TooLong { longest })));
}

#[test]
fn more_validity_than_is_left_provokes_one_try_each_twenty_seconds() {
    let mut rig = Rig::with_token(60.0);
    rig.advance(secs(20.0));
    let first = rig.wants(Want { min_validity: secs(50.0), ..any() });
    assert_eq!(rig.tries.len(), 2);
    let fresh = rig.grants(60.0);
    assert_eq!(rig.answer(first), Some(&Ok(fresh)));

    rig.advance(secs(12.0));
    let second =
        rig.wants(Want { min_validity: secs(50.0), deadline: Some(rig.now.boot + secs(7.0)), ..any() });
    assert_eq!(rig.refusal(second), Some(&RefusalReason::BudgetExhausted));
    let third =
        rig.wants(Want { min_validity: secs(50.0), deadline: Some(rig.now.boot + secs(9.0)), ..any() });
    assert_eq!(rig.answer(third), None);
    assert_eq!(rig.pass_until_try(), secs(8.0));
}

#[test]
fn a_caller_that_hangs_up_provokes_nothing_more() {
    let mut rig = Rig::with_token(60.0);
    rig.advance(secs(20.0));
    let waiter = rig.wants(Want { min_validity: secs(50.0), ..any() });
    rig.no_turn_for(1.0);
    rig.happens(Event::Left(WaiterId(waiter)));
    assert!(rig.pass_until_try() > secs(15.0), "the next try is the scheduled one");
}

#[test]
fn stopping_answers_everybody_and_begins_nothing() {
    let mut rig = Rig::new();
    let waiter = rig.wants(any());
    rig.happens(Event::Stopping);
    assert_eq!(rig.refusal(waiter), Some(&RefusalReason::ShuttingDown));
    rig.fails(lost());
    assert_eq!(rig.core.wake_at(rig.now.boot), None);
}

#[test]
fn an_outage_is_named_even_while_the_budget_is_what_is_waited_for() {
    for (error, again) in [(not_sent(), true), (wrong_credentials(), false)] {
        let mut rig = Rig::new();
        rig.fails(error.clone());
        rig.pass_until_try();
        rig.no_turn_for(6.0);
        let waiter = rig.wants(Want { deadline: Some(rig.now.boot + secs(1.0)), ..any() });
        let refusal = rig.answer(waiter).unwrap().as_ref().unwrap_err();
        assert_eq!(
            (&refusal.reason, refusal.retry_after.is_some()),
            (&RefusalReason::Upstream(error), again)
        );
    }
}

#[test]
fn a_refused_refresh_that_a_caller_provoked_goes_on_with_a_login_too() {
    let mut rig = Rig::with_v2_token(900.0);
    rig.advance(secs(100.0));
    let waiter = rig.wants(Want { min_validity: secs(805.0), ..any() });
    rig.fails(IssueError::RefreshTokenRejected { detail: "401, code 2007".into() });
    assert_eq!(rig.tries, ["login", "refresh", "login"]);
    let token = rig.grants(900.0);
    assert_eq!(rig.answer(waiter), Some(&Ok(token)));
}

#[test]
fn what_a_caller_provoked_and_failed_is_tried_again_in_the_callers_lane() {
    let mut rig = Rig::with_token(3600.0);
    rig.advance(secs(600.0));
    rig.wants(Want { min_validity: secs(3200.0), ..any() });
    rig.fails(lost());
    assert_eq!(rig.state(), KeeperState::Degraded);
    let start = rig.now.boot;
    while rig.now.boot.saturating_since(start) < secs(200.0) {
        rig.pass_until_try();
        rig.fails(lost());
    }
    assert!((11..=13).contains(&rig.tries.len()), "{} tries", rig.tries.len());
    rig.pass_until_try();
    rig.grants(3600.0);
    assert_eq!(rig.state(), KeeperState::Fresh);
}

#[test]
fn a_turn_that_callers_may_not_have_is_no_obstacle_to_the_schedule() {
    let mut rig = Rig::with_token(60.0);
    rig.advance(secs(38.0));
    rig.wants(Want { min_validity: secs(50.0), ..any() });
    rig.no_turn_for(30.0);
    assert!(rig.pass_until_try() < secs(4.0));
}

// ---- rejected tokens

#[test]
fn a_reported_token_is_replaced_by_one_login_and_the_reporter_waits_for_it() {
    let mut rig = Rig::with_v2_token(900.0);
    let bad = rig.current();
    rig.advance(secs(100.0));
    let reporter = rig.wants(rig.rejects("a"));
    assert_eq!(rig.tries, ["login", "login"], "not a refresh");
    assert_eq!(rig.current(), bad, "others get the token in hand");
    let again = rig.wants(rig.rejects("a"));
    let good = rig.grants(900.0);
    assert_eq!((rig.answer(reporter), rig.answer(again)), (Some(&Ok(good)), Some(&Ok(good))));
    assert_eq!(rig.snapshot.token.as_ref().unwrap().replacements, 1);
    assert_eq!(rig.tries.len(), 2);
}

#[test]
fn a_report_about_an_earlier_token_gets_the_current_one() {
    let mut rig = Rig::with_token(900.0);
    let earlier = rig.current();
    rig.pass_until_try();
    let current = rig.grants(900.0);
    let waiter = rig.wants(Want { rejected: earlier, ..any() });
    assert_eq!(rig.answer(waiter), Some(&Ok(current)));
    assert_eq!(rig.tries.len(), 2);
}

#[test]
fn a_second_reporter_makes_the_token_unfit_for_all() {
    let mut rig = Rig::with_token(900.0);
    rig.wants(rig.rejects("a"));
    rig.wants(rig.rejects("b"));
    assert_eq!((rig.current(), rig.state()), (None, KeeperState::Expired));
    assert!(matches!(
        rig.alarms.as_slice(),
        [
            SecurityEvent::TokenReportedRejected { .. },
            SecurityEvent::TokenReportedRejected { .. },
            SecurityEvent::TokenWithdrawn { .. }
        ]
    ));
}

#[test]
fn two_reporters_can_neither_spend_the_budget_nor_keep_the_others_without_a_token() {
    let mut rig = Rig::with_token(900.0);
    let start = rig.now.boot;
    let (mut logins, mut without) = (0, Duration::ZERO);
    while rig.now.boot.saturating_since(start) < secs(200.0) {
        rig.wants(rig.rejects("a"));
        rig.wants(rig.rejects("b"));
        for half in 0..2 {
            without += if rig.current().is_none() { secs(0.25) } else { Duration::ZERO };
            rig.advance(secs(0.25));
            rig.turns();
            // The upstream takes half a second to answer.
            if rig.begun.is_some() && half == 1 {
                logins += 1;
                rig.grants(900.0);
            }
        }
    }
    assert!((9..=11).contains(&logins), "{logins} logins");
    assert!(without <= secs(11.0), "{without:?} without a token");
}

#[test]
fn reports_provoke_one_login_each_twenty_seconds_at_most() {
    let mut rig = Rig::with_token(900.0);
    let start = rig.now.boot;
    let mut logins = 0;
    while rig.now.boot.saturating_since(start) < secs(200.0) {
        rig.wants(rig.rejects("greedy"));
        if rig.begun.is_some() {
            logins += 1;
            rig.grants(900.0);
        }
        rig.advance(secs(0.5));
        rig.turns();
        if rig.begun.is_some() {
            logins += 1;
            rig.grants(900.0);
        }
    }
    assert!((9..=11).contains(&logins), "{logins}");
}

#[test]
fn a_login_that_brings_the_same_token_again_is_not_repeated() {
    let mut rig = Rig::with_token(900.0);
    rig.wants(rig.rejects("a"));
    rig.next_token -= 1;
    let same = rig.grants(900.0);
    rig.advance(secs(30.0));
    let waiter = rig.wants(rig.rejects("a"));
    assert_eq!(rig.answer(waiter), Some(&Ok(same)));
    assert_eq!(rig.tries.len(), 2);
}

// ---- settings

#[test]
fn other_settings_are_in_force_from_the_next_token_on() {
    let mut rig = Rig::with_token(60.0);
    let renews = rig.snapshot.token.as_ref().unwrap().renew_at;
    rig.happens(Event::Adjusted(TokenSettings { refresh_at: 0.3, min_validity: secs(5.0), ..SETTINGS }));
    rig.pass_until_try();
    assert!(rig.now.boot >= renews);
    rig.grants(60.0);
    assert_eq!(rig.snapshot.token.as_ref().unwrap().floor, secs(5.0));
    assert!(rig.pass_until_try() < secs(20.0));
}

// ---- lockdown

#[test]
fn a_lockdown_drops_the_tokens_and_asks_for_none() {
    let mut rig = Rig::with_v2_token(900.0);
    rig.locks(&Scope::Everyone);
    assert!(rig.snapshot.token.is_none() && rig.core.hand.is_none() && rig.core.refresh.is_none());
    let (state, since, reason) = rig.snapshot.state(rig.now);
    assert_eq!((state, since), (KeeperState::LockedDown, rig.now.wall));
    assert_eq!(reason, "locked by ops: stolen laptop");
    assert_eq!(rig.core.wake_at(rig.now.boot), None);
    rig.pass(100_000.0);
    assert_eq!(rig.tries, ["login"]);
}

#[test]
fn what_a_try_under_way_brings_is_not_kept() {
    for ends in [
        |rig: &mut Rig| {
            rig.grants(900.0);
        },
        |rig: &mut Rig| rig.fails(wrong_credentials()),
        |rig: &mut Rig| rig.no_turn_for(100.0),
    ] {
        let mut rig = Rig::with_v2_token(60.0);
        rig.pass_until_try();
        rig.locks(&Scope::Everyone);
        // Even where the lock is gone by then: it was asked for before.
        rig.unlocks(&Scope::Everyone);
        assert_eq!(rig.tries, ["login", "refresh"], "one call after the other");
        ends(&mut rig);
        assert!(rig.snapshot.token.is_none());
        assert_eq!(rig.tries, ["login", "refresh", "login"]);
        rig.grants(900.0);
        assert_eq!(rig.state(), KeeperState::Fresh);
    }
}

#[test]
fn an_unlock_is_followed_by_a_login_at_once_whatever_failed_before() {
    let mut rig = Rig::new();
    rig.fails(wrong_credentials());
    rig.locks(&Scope::Everyone);
    rig.advance(secs(3.0));
    rig.unlocks(&Scope::Everyone);
    assert_eq!((rig.state(), rig.tries.as_slice()), (KeeperState::Starting, ["login", "login"].as_slice()));
}

#[test]
fn those_who_wait_are_refused_at_once() {
    let mut rig = Rig::new();
    let (mine, other) = (rig.wants(any()), rig.wants(Want { caller: "b".parse().unwrap(), ..any() }));
    rig.locks(&Scope::Caller("a".parse().unwrap()));
    assert!(
        matches!(rig.refusal(mine), Some(RefusalReason::LockedDown(out)) if out.scope != Scope::Everyone)
    );
    assert_eq!(rig.answer(other), None);
    rig.locks(&Scope::Everyone);
    assert!(
        matches!(rig.refusal(other), Some(RefusalReason::LockedDown(out)) if out.scope == Scope::Everyone)
    );
    let late = rig.wants(any());
    assert!(rig.refusal(late).is_some());
}

#[test]
fn a_lock_on_one_caller_leaves_the_token_to_the_others() {
    let mut rig = Rig::with_token(60.0);
    let token = rig.current();
    rig.locks(&Scope::Caller("a".parse().unwrap()));
    assert_eq!((rig.state(), rig.current()), (KeeperState::Fresh, token));
    rig.pass_until_try();
    assert_eq!(rig.tries.len(), 2);
}

#[test]
fn a_keeper_that_begins_locked_asks_for_nothing() {
    let now = Rig::new().now;
    let since = Timestamp::UNIX_EPOCH;
    let lock = Lock { since, reason: "before".parse().unwrap(), by: "ops".into() };
    let locks = Locks::default().with(&Scope::Everyone, lock);
    let mut core = Core::new(SETTINGS, Arc::new(locks), 7, now);
    let (state, shown, _) = core.snapshot().state(now);
    assert_eq!((state, shown), (KeeperState::LockedDown, since));
    assert!(!core.settle(now).iter().any(|action| matches!(action, Action::Begin(_))));
}

mod replacing;
