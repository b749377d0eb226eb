//! Whatever happens, in whatever order: the core under random events keeps what it promises.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{
    keeper::{
        attempt::{AttemptKind, Outcome},
        waiting::RefusalReason,
    },
    lockdown::{Lock, Scope},
    secret::ExposeSecret,
    token::{AccessToken, Grant, ServerClock},
};

/// Something that happens to the core.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Time goes by; the core is woken whenever it asked for it.
    Pass(Duration),
    /// Time goes by while the machine is suspended: nobody is woken in between.
    Suspend(Duration),
    /// A call comes.
    Call { caller: u8, min_validity: Duration, rejects: Rejects, deadline: Option<Duration> },
    /// Other credentials are proposed, which wait this long for their turn.
    Propose(Duration),
    /// The oldest replacement is taken back.
    TakeBack,
    /// What is proved is put in force.
    Adopt,
    /// Other settings are put in force.
    Adjust(Duration),
    /// Everyone is locked out, or the first caller is, or not any more.
    Lock { everyone: bool, locked: bool },
    /// The oldest waiting call hangs up.
    HangUp,
    /// The try under way, if any, ends.
    End { ending: Ending, record_kept: bool },
}

/// Which token a call says it was answered 401 with.
#[derive(Clone, Copy, Debug)]
enum Rejects {
    None,
    Current,
    Earlier,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Granted { lifetime: Duration },
    Failed(usize),
    NoTurn(Duration),
}

fn errors() -> Vec<IssueError> {
    let detail = String::new;
    vec![
        IssueError::NotSent { detail: detail() },
        IssueError::AnswerLost { detail: detail() },
        IssueError::Throttled { retry_after: Some(Duration::from_secs(7)) },
        IssueError::CredentialsRejected { detail: detail() },
        IssueError::RefreshTokenRejected { detail: detail() },
        IssueError::Forbidden { detail: detail() },
        IssueError::Failed { status: 502, detail: detail() },
        IssueError::Unusable { detail: detail() },
        IssueError::WrongSign,
    ]
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let millis = |most: u64| (0..most).prop_map(Duration::from_millis);
    let rejects =
        prop_oneof![4 => Just(Rejects::None), 2 => Just(Rejects::Current), 1 => Just(Rejects::Earlier)];
    let call = (0..3_u8, millis(70_000), rejects, prop::option::of(millis(20_000)), any::<bool>()).prop_map(
        |(caller, validity, rejects, deadline, picky)| Happening::Call {
            caller,
            min_validity: if picky { validity } else { Duration::ZERO },
            rejects,
            deadline,
        },
    );
    let ending = prop_oneof![
        4 => (5_u64..120).prop_map(|s| Ending::Granted { lifetime: Duration::from_secs(s) }),
        3 => (0..errors().len()).prop_map(Ending::Failed),
        1 => millis(8000).prop_map(Ending::NoTurn),
    ];
    let happening = prop_oneof![
        4 => millis(20_000).prop_map(Happening::Pass),
        1 => millis(200_000).prop_map(Happening::Suspend),
        4 => call,
        1 => Just(Happening::HangUp),
        2 => millis(20_000).prop_map(Happening::Propose),
        1 => Just(Happening::TakeBack),
        2 => Just(Happening::Adopt),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(everyone, locked)| Happening::Lock { everyone, locked }),
        1 => millis(20_000).prop_map(Happening::Adjust),
        5 => (ending, prop::bool::weighted(0.9))
            .prop_map(|(ending, record_kept)| Happening::End { ending, record_kept }),
    ];
    prop::collection::vec(happening, 1..120)
}

const SETTINGS: TokenSettings = TokenSettings {
    refresh_at: 0.67,
    min_validity: Duration::from_secs(10),
    request_timeout: Duration::from_secs(10),
};

/// All that a proof must leave as it was.
fn what_is_in_force(core: &Core) -> impl PartialEq + use<> {
    let refresh = core.refresh.as_ref().map(|token| token.secret.expose_secret().to_owned());
    let failing = core.failing.as_ref().map(|row| (row.error.clone(), row.since, row.failures));
    (
        core.hand.as_ref().map(|token| token.id()),
        (refresh, core.login_owed, core.confirmed, core.rejection.as_ref().map(|r| (r.token, r.seconded))),
        (failing, core.not_before, core.lane_opens, core.last_call.clone()),
        (core.settings, core.generation, core.last_lifetime, core.budget_problem.clone()),
    )
}

/// A replacement that is proved.
#[derive(Clone, Copy)]
struct HeldBack {
    id: u64,
    token: TokenId,
    /// Which of all tokens that is.
    number: u32,
    /// There was no lockdown of everyone since it was asked for.
    kept: bool,
}

/// The world around the core, which notes whatever should never be.
struct World {
    core: Core,
    v2: bool,
    now: Now,
    snapshot: TokenSnapshot,
    trying: Option<AttemptKind>,
    waiting: BTreeMap<u64, (Want, BootInstant)>,
    /// Until when the proof of each replacement may begin.
    proposed: BTreeMap<u64, BootInstant>,
    /// What is proved and not in force.
    held: Option<HeldBack>,
    generation: u64,
    locks: Arc<Locks>,
    /// Everyone was locked out since the try under way began.
    fruitless: bool,
    /// There was no lockdown of everyone since the proof under way began.
    proof_counts: bool,
    next_id: u64,
    tokens: u32,
    /// Refresh tokens that the upstream may have seen.
    spent: BTreeSet<String>,
    /// What the snapshot held before the turn.
    wrong: Vec<String>,
}

impl World {
    fn new(v2: bool, seed: u64) -> Self {
        let boot = BootInstant::since_boot(Duration::from_secs(10_000));
        let now = Now { boot, wall: Timestamp::UNIX_EPOCH };
        let core = Core::new(SETTINGS, Arc::default(), seed, now);
        let snapshot = core.snapshot();
        let mut world = Self {
            core,
            v2,
            now,
            snapshot,
            trying: None,
            waiting: BTreeMap::new(),
            proposed: BTreeMap::new(),
            held: None,
            generation: 1,
            locks: Arc::default(),
            fruitless: false,
            proof_counts: true,
            next_id: 0,
            tokens: 0,
            spent: BTreeSet::new(),
            wrong: Vec::new(),
        };
        world.turn(None);
        world
    }

    fn check(&mut self, kept: bool, promise: &str) {
        if !kept {
            self.wrong.push(format!("{:?}: {promise}", self.now.boot));
        }
    }

    fn turn(&mut self, event: Option<Event>) {
        let failed = matches!(
            &event,
            Some(Event::Ended(AttemptEnd {
                outcome: Outcome::Called { result: Err(_), .. } | Outcome::NoTurn(_),
                ..
            }))
        );
        let good_before = self.snapshot.token_for(Duration::ZERO, self.now.boot).map(|token| token.id());
        let proof_ended =
            matches!(&event, Some(Event::Ended(AttemptEnd { kind: AttemptKind::Proof(_), .. })));
        let abandoned = self.core.trying == Some(Lane::Nobody);
        let in_force = what_is_in_force(&self.core);
        if let Some(event) = event {
            self.core.take_in(event, self.now);
        }
        if proof_ended {
            let still = what_is_in_force(&self.core) == in_force;
            self.check(still, "a proof changed something");
        }
        for action in self.core.settle(self.now) {
            self.act(action);
        }
        // The end of a proof, or of what is not kept, may let a login begin, which takes a token away that two callers rejected.
        if failed && !proof_ended && !abandoned {
            let good_now = self.snapshot.token_for(Duration::ZERO, self.now.boot).map(|token| token.id());
            self.check(good_before == good_now, "a failure took a good token away");
        }
        let ready = self.snapshot.is_ready(self.now.boot);
        let (state, ..) = self.snapshot.state(self.now);
        let says_ready = matches!(state, KeeperState::Fresh | KeeperState::Degraded);
        let says_not = matches!(state, KeeperState::Starting | KeeperState::Expired);
        self.check(!says_ready || ready, "a state that promises a token without one");
        self.check(!says_not || !ready, "a state that denies a token in hand");
        let published = self.snapshot.generation == self.generation;
        self.check(published, "the snapshot is of another generation");
        let proving = self.proving();
        let late = self.proposed.iter().any(|(id, by)| *by <= self.now.boot && proving != Some(*id));
        self.check(!late, "a replacement was not answered in time");
        let overdue = self.waiting.values().any(|(_, answer_by)| *answer_by <= self.now.boot);
        self.check(!overdue, "a call was not answered in time");
        let locked = self.locks.on_everyone().is_some();
        self.check(!locked || self.snapshot.token.is_none(), "a token under lockdown");
        let held = self.core.replacing.held_token();
        let kept = locked && (self.core.hand.is_some() || self.core.refresh.is_some() || held.is_some());
        self.check(!kept, "a token was kept under lockdown");
        let expected = self.held.filter(|held| held.kept).map(|held| held.token);
        self.check(held == expected, "what is held back is not what was proved");
        let shown = self.snapshot.token.as_ref().map(|token| token.id());
        self.check(held.is_none() || shown != held, "a token is shown that is held back");
        let of_another =
            self.snapshot.token.as_ref().is_some_and(|token| token.generation != self.generation);
        self.check(!of_another, "a token of replaced credentials is shown");
        let says = state == KeeperState::LockedDown;
        self.check(says == locked, "the state does not say whether everyone is locked out");
        let asleep = !locked && self.trying.is_none() && self.core.wake_at(self.now.boot).is_none();
        self.check(!asleep, "nothing is tried and nobody will wake the core");
    }

    /// The replacement whose proof is under way.
    fn proving(&self) -> Option<u64> {
        match self.trying {
            Some(AttemptKind::Proof(id)) => Some(id.0),
            _ => None,
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Conclude(id, outcome) => {
                let waited = self.proposed.remove(&id.0).is_some();
                self.check(waited, "a replacement was concluded that nobody waits for");
                if let Ok(token) = outcome {
                    let alone = self.held.is_none();
                    self.check(alone, "two replacements are held at a time");
                    let kept = self.proof_counts && self.locks.on_everyone().is_none();
                    self.held = Some(HeldBack { id: id.0, token, number: self.tokens, kept });
                }
            }
            Action::Adopt(id, replaced) => {
                let held = self.held.take().filter(|held| (held.id, held.token) == (id.0, replaced.token));
                self.check(held.is_some(), "a replacement is in force that was not held");
                self.generation += 1;
                let counted = replaced.generation == self.generation;
                self.check(counted, "generations are not counted one by one");
                // Nothing of the old chain may be presented any more.
                let own = held.map(|held| held.number);
                let old = (1..=self.tokens).filter(|number| Some(*number) != own);
                self.spent.extend(old.map(|number| format!("refresh-{number}")));
                // What the old set's try under way will bring is not kept either.
                self.fruitless |= self.trying.is_some();
            }
            Action::Begin(attempt) => {
                let proof = matches!(attempt.kind, AttemptKind::Proof(_));
                let allowed = proof || self.locks.on_everyone().is_none();
                self.check(allowed, "a try was begun under lockdown");
                if let AttemptKind::Proof(id) = &attempt.kind {
                    self.proof_counts = true;
                    let alone = self.held.is_none();
                    self.check(alone, "a proof was begun while another's token is held");
                    let in_time = self.proposed.get(&id.0).is_some_and(|by| *by > self.now.boot);
                    self.check(in_time, "a proof began too late, or for nobody");
                }
                let alone = self.trying.is_none();
                self.check(alone, "two tries at a time");
                if let AttemptKind::Refresh(token) = &attempt.kind {
                    let fresh = !self.spent.contains(token.secret.expose_secret());
                    self.check(fresh, "a refresh token was presented after it may have been spent");
                    let current = token.expires_at > self.now.boot;
                    self.check(current, "an expired refresh token was presented");
                }
                let patient =
                    attempt.patience >= Duration::from_secs(1) && attempt.patience <= Duration::from_secs(10);
                self.check(patient, "a try of no sensible length");
                self.trying = Some(attempt.kind);
            }
            Action::Answer(id, answer) => {
                let Some((want, _)) = self.waiting.remove(&id.0) else {
                    self.check(false, "an answer to nobody");
                    return;
                };
                let refused = matches!(&answer, Err(Refusal { reason: RefusalReason::LockedDown(_), .. }));
                let barred = self.locks.bar(&want.caller);
                self.check(refused == barred, "a lock is not obeyed");
                if let Ok(token) = answer {
                    let satisfied = token.satisfies(want.min_validity, self.now.boot);
                    self.check(
                        satisfied,
                        "a token was handed out under the validity asked for, or under the floor",
                    );
                    let other = want.rejected != Some(token.id()) || self.core.confirmed == want.rejected;
                    self.check(other, "the rejected token was handed to its reporter");
                }
            }
            Action::Publish(snapshot) => self.snapshot = snapshot,
            Action::Alarm(_) | Action::Tell(_) => {}
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Pass(time) => {
                let end = self.now.boot + time;
                while let Some(at) = self.core.wake_at(self.now.boot).filter(|at| *at <= end) {
                    self.advance(at.saturating_since(self.now.boot));
                    self.turn(None);
                    if self.core.wake_at(self.now.boot).is_some_and(|next| next <= self.now.boot) {
                        self.check(false, "the core wants to be woken at once, again and again");
                        break;
                    }
                }
                self.advance(end.saturating_since(self.now.boot));
            }
            Happening::Suspend(time) => {
                self.advance(time);
                self.turn(None);
            }
            Happening::Call { caller, min_validity, rejects, deadline } => {
                let rejected = match rejects {
                    Rejects::None => None,
                    Rejects::Current => self.snapshot.token.as_ref().map(|token| token.id()),
                    Rejects::Earlier => Some(AccessToken::parse("earlier".to_owned().into()).unwrap().id()),
                };
                let deadline = deadline.map(|deadline| self.now.boot + deadline);
                let want =
                    Want { caller: caller.to_string().parse().unwrap(), min_validity, rejected, deadline };
                let answer_by = Waiter::new(want.clone(), 0, self.now.boot).answer_by;
                self.next_id += 1;
                self.waiting.insert(self.next_id, (want.clone(), answer_by));
                self.turn(Some(Event::Wanted(WaiterId(self.next_id), want)));
            }
            Happening::Propose(patience) => {
                self.next_id += 1;
                let begin_by = self.now.boot + patience;
                self.proposed.insert(self.next_id, begin_by);
                let settings = TokenSettings { min_validity: patience, ..SETTINGS };
                let id = ReplacementId(self.next_id);
                let proposal = Proposal::new(id, settings, Some(begin_by), self.now.boot);
                self.turn(Some(Event::Proposed(proposal)));
            }
            Happening::TakeBack => {
                let held = self.held.take().map(|held| held.id);
                if let Some(id) = held.or_else(|| self.proposed.pop_first().map(|(id, _)| id)) {
                    self.turn(Some(Event::Withdrawn(ReplacementId(id))));
                }
            }
            Happening::Adopt => {
                // Of one that is not proved, or gone, nothing can come.
                let id = self.held.map_or(self.next_id, |held| held.id);
                self.turn(Some(Event::Adopted(ReplacementId(id))));
                self.check(self.held.is_none(), "what was to be in force is not");
            }
            Happening::Adjust(min_validity) => {
                self.turn(Some(Event::Adjusted(TokenSettings { min_validity, ..SETTINGS })));
            }
            Happening::Lock { everyone, locked } => {
                let scope = if everyone { Scope::Everyone } else { Scope::Caller("0".parse().unwrap()) };
                let since = self.now.wall;
                let lock = Lock { since, reason: "told to".parse().unwrap(), by: "ops".into() };
                let locks = Locks::clone(&self.locks);
                self.locks = Arc::new(if locked { locks.with(&scope, lock) } else { locks.without(&scope) });
                if self.locks.on_everyone().is_some() {
                    self.proof_counts = false;
                    if let Some(held) = &mut self.held {
                        held.kept = false;
                    }
                }
                if everyone && locked {
                    // Whatever it had, and what it asked for, is never presented again.
                    self.spent.extend((1..=self.tokens).map(|token| format!("refresh-{token}")));
                    self.fruitless |=
                        matches!(&self.trying, Some(kind) if !matches!(kind, AttemptKind::Proof(_)));
                }
                self.turn(Some(Event::Locked(Arc::clone(&self.locks))));
            }
            Happening::HangUp => {
                if let Some((id, _)) = self.waiting.pop_first() {
                    self.turn(Some(Event::Left(WaiterId(id))));
                }
            }
            Happening::End { ending, record_kept } => self.end_try(ending, record_kept),
        }
    }

    fn end_try(&mut self, ending: Ending, record_kept: bool) {
        let Some(kind) = self.trying.take() else { return };
        let fruitless = std::mem::take(&mut self.fruitless);
        let budget_problem = (!record_kept).then(|| "disk full".to_owned());
        let outcome = match ending {
            Ending::NoTurn(time) => Outcome::NoTurn(self.now.boot + time + Duration::from_nanos(1)),
            Ending::Granted { lifetime } => {
                Outcome::Called { result: Ok(self.grant(lifetime)), took: Duration::ZERO }
            }
            Ending::Failed(which) => {
                Outcome::Called { result: Err(errors().swap_remove(which)), took: Duration::ZERO }
            }
        };
        if let (AttemptKind::Refresh(token), Outcome::Called { result, .. }) = (&kind, &outcome)
            && !result.as_ref().is_err_and(IssueError::spares_refresh_token)
        {
            self.spent.insert(token.secret.expose_secret().to_owned());
        }
        let granted = matches!(outcome, Outcome::Called { result: Ok(_), .. });
        self.turn(Some(Event::Ended(AttemptEnd { kind, outcome, budget_problem })));
        if fruitless && granted {
            let newest = AccessToken::parse(format!("access-{}", self.tokens).into()).unwrap().id();
            let kept = self.core.hand.as_ref().is_some_and(|token| token.id() == newest);
            self.check(
                !kept,
                "a token was kept that was asked for before a lockdown, or with credentials that are gone",
            );
        }
    }

    fn grant(&mut self, lifetime: Duration) -> Grant {
        self.tokens += 1;
        let server_clock = ServerClock { boot: self.now.boot, server: self.now.wall };
        Grant {
            access: AccessToken::parse(format!("access-{}", self.tokens).into()).unwrap(),
            asked_at: self.now.boot,
            lifetime,
            refresh: self.v2.then(|| RefreshToken {
                secret: format!("refresh-{}", self.tokens).into(),
                expires_at: self.now.boot + lifetime * 3,
                server_clock,
            }),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = Now { boot: self.now.boot + by, wall: self.now.wall + by };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_are_kept_whatever_happens(happenings in happenings(), v2 in any::<bool>(), seed in any::<u64>()) {
        let mut world = World::new(v2, seed);
        for happening in happenings {
            let told = format!("{happening:?}");
            world.happens(happening);
            prop_assert!(world.wrong.is_empty(), "after {told}: {:?}", world.wrong);
        }
        world.happens(Happening::Lock { everyone: true, locked: false });
        world.happens(Happening::Lock { everyone: false, locked: false });
        // And in the end all is well again, by itself.
        for _ in 0..20 {
            world.happens(Happening::Pass(Duration::from_secs(301)));
            let ending = Ending::Granted { lifetime: Duration::from_secs(3600) };
            world.happens(Happening::End { ending, record_kept: true });
            if world.snapshot.state(world.now).0 == KeeperState::Fresh {
                break;
            }
        }
        prop_assert_eq!(world.snapshot.state(world.now).0, KeeperState::Fresh, "it never recovered");
        // Stopping leaves nobody waiting, and begins nothing.
        let want = Happening::Call { caller: 0, min_validity: Duration::ZERO, rejects: Rejects::Current, deadline: None };
        world.happens(want);
        world.core.take_in(Event::Stopping, world.now);
        for action in world.core.settle(world.now) {
            prop_assert!(!matches!(action, Action::Begin(_)), "a try was begun while stopping");
            world.act(action);
        }
        prop_assert!(world.waiting.is_empty(), "{:?} still wait", world.waiting);
    }
}
