//! Days of operation in a moment: the core and the budget on a simulated clock, with a simulated upstream that answers
//! after a while. Not one instant may be without a token of at least the floor, and no more may be asked than the
//! schedule needs.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;

use super::*;
use crate::keeper::attempt::{AttemptKind, Outcome};
use crate::{
    budget::{CallBudget, CallLimit, CallRecord, History, PastCall, RecordUnusable, Turn},
    clock::Clock,
    token::{AccessToken, Grant, ServerClock},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const SEEDS: u32 = 5;
const LATENCY: Duration = Duration::from_millis(300);

#[derive(Default)]
struct SimulatedClock(AtomicU64);

impl SimulatedClock {
    fn set(&self, to: BootInstant) {
        self.0.store(u64::try_from(to.as_duration().as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Now {
        let boot = Duration::from_nanos(self.0.load(Ordering::Relaxed));
        Now { boot: BootInstant::since_boot(boot), wall: Timestamp::UNIX_EPOCH + boot }
    }
}

struct MemoryRecord(Mutex<Vec<PastCall>>);

impl CallRecord for MemoryRecord {
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable> {
        let mut calls = self.0.lock().unwrap();
        if let Some(new) = decide(History::Kept(calls.clone()), clock.now()) {
            *calls = new;
        }
        Ok(())
    }
}

/// What a day came to.
struct Day {
    calls: u32,
    refreshes: u32,
    /// The least that was left of the token in hand above its floor, over all instants after the first token.
    least_margin: Option<Duration>,
    states: Vec<KeeperState>,
}

fn live_a_day(lifetime: Duration, v2: bool, seed: u64) -> Day {
    let settings = TokenSettings {
        refresh_at: 0.67,
        min_validity: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let clock = Arc::new(SimulatedClock::default());
    clock.set(BootInstant::since_boot(DAY));
    let record = Arc::new(MemoryRecord(Mutex::default()));
    let budget = CallBudget::new(CallLimit::B2BINPAY, record, Arc::clone(&clock) as _);
    let mut core = Core::new(settings, Arc::default(), seed, clock.now());
    let end = clock.now().boot + DAY;

    let mut day = Day { calls: 0, refreshes: 0, least_margin: None, states: Vec::new() };
    let mut answer: Option<(BootInstant, AttemptEnd)> = None;
    let mut held: Option<Arc<HeldToken>> = None;
    let mut event = None;
    loop {
        let now = clock.now();
        if let Some(event) = event {
            core.take_in(event, now);
        }
        for action in core.settle(now) {
            match action {
                Action::Begin(attempt) => {
                    day.refreshes += u32::from(matches!(attempt.kind, AttemptKind::Refresh(_)));
                    let outcome = match runtime.block_on(budget.take(attempt.purpose)) {
                        Turn::NotBefore(until) => Outcome::NoTurn(until),
                        Turn::Granted => {
                            day.calls += 1;
                            let server_clock = ServerClock { boot: now.boot, server: now.wall };
                            let grant = Grant {
                                access: AccessToken::parse(format!("t{}", day.calls).into()).unwrap(),
                                asked_at: now.boot,
                                lifetime,
                                refresh: v2.then(|| RefreshToken {
                                    secret: "r".to_owned().into(),
                                    expires_at: now.boot + lifetime * 24,
                                    server_clock,
                                }),
                            };
                            Outcome::Called { result: Ok(grant), took: LATENCY }
                        }
                    };
                    answer = Some((
                        now.boot + LATENCY,
                        AttemptEnd { kind: attempt.kind, outcome, budget_problem: None },
                    ));
                }
                Action::Publish(snapshot) => {
                    if let Some(old) = &held {
                        // Between two changes the margin only shrinks: it is least right before the next.
                        let margin = old.handed_out_until().as_duration().checked_sub(now.boot.as_duration());
                        let margin = margin.unwrap_or_default();
                        day.least_margin = Some(day.least_margin.map_or(margin, |least| least.min(margin)));
                    }
                    day.states.push(snapshot.state(now).0);
                    held.clone_from(&snapshot.token);
                }
                Action::Answer(..)
                | Action::Conclude(..)
                | Action::Adopt(..)
                | Action::Alarm(_)
                | Action::Tell(_) => {}
            }
        }
        let wake = core.wake_at(now.boot);
        let next = answer.as_ref().map(|(at, _)| *at).into_iter().chain(wake).min().unwrap();
        if next >= end {
            return day;
        }
        clock.set(next);
        event = answer.take_if(|(at, _)| *at <= next).map(|(_, end)| Event::Ended(end));
    }
}

#[test]
fn a_day_passes_without_an_instant_without_a_token_and_without_a_needless_call() {
    for lifetime in [60, 900, 3600].map(Duration::from_secs) {
        for v2 in [true, false] {
            let mut days: Vec<_> = (0..SEEDS).map(|seed| live_a_day(lifetime, v2, seed.into())).collect();
            for day in &days {
                let least = day.least_margin.expect("no token was ever replaced");
                assert!(least > Duration::ZERO, "{lifetime:?}: the token in hand fell below the floor");
                assert!(day.states.iter().all(|state| *state == KeeperState::Fresh), "{:?}", day.states);
                assert_eq!(day.refreshes, if v2 { day.calls - 1 } else { 0 });
            }
            let needed = DAY.as_secs_f64() / (0.67 * lifetime.as_secs_f64());
            let made = f64::from(days.drain(..).map(|day| day.calls).sum::<u32>()) / f64::from(SEEDS);
            let off = made / needed - 1.0;
            println!(
                "{lifetime:?} {}: {made:.1} calls a day, {needed:.1} needed, off by {:.2} %",
                if v2 { "v2" } else { "v3" },
                off * 100.0
            );
            assert!(off.abs() < 0.02, "{lifetime:?}: {made} calls instead of {needed}");
        }
    }
}
