//! Promise 1: never over the upstream's limit, here with processes that are killed, doubled, and robbed of their record.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, time::Duration};

use b2binpay_broker::grpc::proto::BrokerState;
use b2binpay_simulator::{Api, Outcome, Settings, Simulator};
use support::{Answered, Daemon, Home, Setup, Stopwatch, World, generous, soon};

/// B2BINPAY's own limit, which the simulator keeps unless told otherwise.
const OFFICIAL: &str = "requests = 15\nwindow = \"60s\"";
const MINUTE: Duration = Duration::from_secs(60);
/// With that limit the steady pace is one call in this time.
const INTERVAL: Duration = Duration::from_secs(6);

fn official() -> Setup {
    Setup { budget: OFFICIAL.into(), ..Setup::default() }
}

#[tokio::test]
async fn kill_9_in_a_loop_never_makes_a_sixteenth_call_in_a_minute() {
    // Tokens that end at once would be another reason to call; these make the restarts the only one.
    let simulator = Simulator::start(Settings { api: Api::V3, ..Settings::default() }).await.unwrap();
    let mut home = Home::new(&simulator, &official());
    let since = Stopwatch::start();
    let mut restarts = 0;
    // Longer than the window, so that calls leave it while others come.
    while restarts < 25 || since.read() < MINUTE + Duration::from_secs(3) {
        let daemon = Daemon::start_in(home).await;
        if restarts % 2 == 0 {
            // A caller that wants a token now, as its supervisor's other children would.
            let _ = daemon.raw_caller().await.token_for(Duration::ZERO, "", Duration::from_millis(400)).await;
        }
        home = daemon.kill().await;
        restarts += 1;
    }
    let calls = simulator.calls();
    let most = calls.max_in_any_window(MINUTE);
    assert!(most <= 15, "{most} calls in a minute, {restarts} restarts");
    assert_eq!(calls.count_of(Outcome::Throttled), 0);
    // It was the budget that held them back, and it gave what there was.
    assert!(most >= 6 && restarts > most * 2, "{most} calls, {restarts} restarts");
}

#[tokio::test]
async fn two_daemons_on_one_state_directory_share_the_limit() {
    let simulator = Simulator::start(Settings { api: Api::V3, ..Settings::default() }).await.unwrap();
    let shared = tempfile::tempdir().unwrap();
    let setup = Setup { state: Some(shared.path().to_owned()), ..official() };
    let one = Daemon::start(&simulator, setup.clone()).await;
    let two = Daemon::start(&simulator, setup).await;
    let (one, two) = (one.caller(), two.caller());
    let tokens = tokio::join!(one.token(), two.token());
    assert!(tokens.0.is_ok() && tokens.1.is_ok());
    let calls = simulator.calls();
    assert_eq!(calls.len(), 2);
    // A first start has one call at once; the second is the other's, an interval later.
    let gap = calls.shortest_gap().unwrap();
    assert!(gap > INTERVAL.mul_f64(0.9), "{gap:?}");
    for caller in [one, two] {
        // Each knows of the other's call once it has looked.
        let budget = caller.status().await.unwrap().budget.unwrap();
        assert!(budget.used >= 1 && budget.available <= 1, "{budget:?}");
    }
}

#[tokio::test]
async fn what_one_process_spent_the_next_one_knows() {
    let simulator = Simulator::start(Settings { api: Api::V3, ..Settings::default() }).await.unwrap();
    let daemon = Daemon::start(&simulator, official()).await;
    daemon.caller().token().await.unwrap();
    let home = daemon.kill().await;
    let record = fs::read_to_string(home.record()).unwrap();
    assert!(record.starts_with("b2binpay-broker calls 1\n"), "{record}");
    assert_eq!(record.matches("\ncall ").count(), 1, "{record}");
    assert!(!record.contains("eyJ") && !record.contains("demo-api"), "{record}");
    let daemon = Daemon::start_in(home).await;
    let refused =
        daemon.raw_caller().await.token_for(Duration::ZERO, "", Duration::from_secs(1)).await.refused();
    assert_eq!(refused.reason, "BUDGET_EXHAUSTED");
    let budget = daemon.caller().status().await.unwrap().budget.unwrap();
    assert_eq!((budget.limit, budget.used, budget.available), (15, 1, 0));
    assert_eq!(simulator.calls().len(), 1);
}

#[tokio::test]
async fn a_corrupt_record_means_an_empty_bucket_and_is_told() {
    let simulator = Simulator::start(Settings { api: Api::V3, ..Settings::default() }).await.unwrap();
    let daemon = Daemon::start(&simulator, official()).await;
    daemon.caller().token().await.unwrap();
    let home = daemon.kill().await;
    let calls_before = simulator.calls().len();
    let record = home.record();
    let mut bytes = fs::read(&record).unwrap();
    bytes[30] ^= 0xff;
    fs::write(&record, bytes).unwrap();

    let since = Stopwatch::start();
    let daemon = Daemon::start_in(home).await;
    daemon.logged("the record of earlier calls to the upstream can't be believed").await;
    let caller = daemon.caller();
    let refused =
        daemon.raw_caller().await.token_for(Duration::ZERO, "", Duration::from_secs(1)).await.refused();
    assert_eq!(refused.reason, "BUDGET_EXHAUSTED");
    assert!(refused.retry_after.is_some_and(|after| after <= INTERVAL), "{refused:?}");
    let status = caller.status().await.unwrap();
    assert_eq!((status.state(), status.budget.unwrap().available), (BrokerState::Starting, 0));
    caller.token().await.unwrap();
    assert!(since.read() > INTERVAL.mul_f64(0.9), "{:?}", since.read());
    assert_eq!(simulator.calls().len(), calls_before + 1);
    // It is whole again.
    assert!(fs::read_to_string(&record).unwrap().starts_with("b2binpay-broker calls 1\n"));
    assert_eq!(caller.state().await, BrokerState::Fresh);
}

#[tokio::test]
async fn a_record_that_can_not_be_kept_is_told_and_tokens_are_served() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let setup = Setup { state: Some(file.path().join("state")), ..Setup::default() };
    let daemon = Daemon::start(&simulator, setup).await;
    let caller = daemon.caller();
    let token = caller.token().await.unwrap();
    assert!(simulator.is_live(&token.access_token));
    let status = caller.in_state(BrokerState::Degraded).await;
    assert!(status.ready);
    assert!(status.reason.starts_with("the record of call times can't be kept: "), "{}", status.reason);
    assert!(status.reason.contains(&file.path().display().to_string()), "{}", status.reason);
    assert!(status.budget.unwrap().problem.contains("can't open"));
    daemon.logged("the record of call times can't be kept").await;
}

#[tokio::test]
async fn a_record_that_can_not_be_kept_leaves_no_burst_and_no_hole_for_restarts() {
    let simulator = Simulator::start(Settings { api: Api::V3, ..Settings::default() }).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let setup = Setup { state: Some(file.path().join("state")), ..official() };
    let mut home = Home::new(&simulator, &setup);
    for _ in 0..5 {
        let daemon = Daemon::start_in(home).await;
        let refused =
            daemon.raw_caller().await.token_for(Duration::ZERO, "", Duration::from_millis(500)).await;
        assert_eq!(refused.refused().reason, "BUDGET_EXHAUSTED");
        home = daemon.kill().await;
    }
    assert_eq!(simulator.calls().len(), 0);
}

#[tokio::test]
async fn a_record_that_is_lost_and_found_again_is_kept_again() {
    let settings = Settings { access_lifetime: Some(Duration::from_secs(20)), ..generous(Api::V3) };
    let setup = Setup { rest: "[token]\nrefresh_at = 0.1\n".into(), ..Setup::default() };
    let world = World::with(settings, setup).await;
    let caller = world.caller();
    caller.in_state(BrokerState::Fresh).await;
    let (state, away) = (world.daemon.home.path().join("state"), world.daemon.home.path().join("away"));
    fs::rename(&state, &away).unwrap();
    assert!(caller.in_state(BrokerState::Degraded).await.ready);
    fs::rename(&away, &state).unwrap();
    caller.in_state(BrokerState::Fresh).await;
    world.daemon.logged("the record of call times is kept again").await;
}

#[tokio::test]
async fn greedy_callers_get_a_lane_and_the_schedule_keeps_its_own() {
    let settings = Settings { access_lifetime: Some(Duration::from_secs(20)), ..generous(Api::V2) };
    let setup = Setup { rest: "[token]\nrefresh_at = 0.5\n".into(), ..Setup::default() };
    let world = World::with(settings, setup).await;
    let caller = world.caller();
    caller.token().await.unwrap();
    let raw = world.daemon.raw_caller().await;
    let greedy = tokio::spawn(async move {
        let soon_over = Duration::from_millis(100);
        loop {
            if let Ok(token) = caller.token().await {
                let _ = raw.token_for(Duration::ZERO, &token.token_id, soon_over).await;
            }
            let _ = raw.token_for(Duration::from_millis(17_900), "", soon_over).await;
        }
    });
    // At the start, at most one for the greedy, and the schedule's after half of each lifetime.
    let calls = soon("renewals", world.simulator.wait_for_calls(4)).await;
    greedy.abort();
    let (first, last) = (calls.first().unwrap().at, calls[3].at);
    let took = last.saturating_sub(first);
    assert!(took > Duration::from_secs(17), "{took:?}: {calls:?}");
    assert_eq!(world.caller().state().await, BrokerState::Fresh);
}
