//! Everything read again while the broker runs: all of it or nothing, and at once.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, time::Duration};

use b2binpay_broker::grpc::{
    proto::{
        BrokerState, KeyGeneration, TokenReason, Verdict, WatchAccessTokenResponse,
        verify_sign_request::Subject,
    },
    reason_of,
};
use b2binpay_simulator::{
    Api, CallbackSpec, Credentials, Fault, FaultKind, Settings, Simulator,
    settings::{Generation, Limit},
};
use nix::sys::signal::Signal;
use support::{
    Answered, Caller, Daemon, Refused, Setup, Stopwatch, World, generous,
    raw::{GET_STATUS, LOCKDOWN, RELOAD, UNLOCK, VERIFY_SIGN},
    soon, told,
    users::may_be_others,
};
use tonic::{Code, Streaming};

/// The user of another caller than whoever runs the tests.
const OTHER: u32 = 54_321;

fn caller(name: &str, uid: u32, allow: &str) -> String {
    format!("[[caller]]\nname = \"{name}\"\nunix_user = \"{uid}\"\nallow = [{allow}]\n")
}

fn admin() -> String {
    caller(
        "admin",
        nix::unistd::getuid().as_raw(),
        "\"Admin\", \"GetAccessToken\", \"WatchAccessToken\", \"VerifySign\"",
    )
}

fn with_callers(callers: &str) -> Setup {
    Setup { callers: Some(callers.to_owned()), ..Setup::default() }
}

/// Another credential set, of which the upstream knows.
fn rotate(simulator: &Simulator) {
    simulator.set(|settings| {
        settings.credentials =
            Credentials { key: "another-api-key".to_owned(), secret: "another-api-secret".to_owned() };
        settings.callback_secret = String::from("another-callback-secret");
    });
}

async fn end_of(watch: &mut Streaming<WatchAccessTokenResponse>) -> Refused {
    match soon("the end of the stream", watch.message()).await {
        Ok(told) => panic!("it goes on: {}", told.is_some()),
        Err(status) => status.into(),
    }
}

#[tokio::test]
async fn nothing_that_is_other_than_before_costs_no_call_and_is_said() {
    let world = World::of(Api::V3).await;
    let token = world.caller().token().await.unwrap().token_id;
    let calls = world.simulator.calls().len();
    let answer = world.caller().reload().await.unwrap();
    assert_eq!((answer.changes, answer.notes, answer.credential_generation), (Vec::new(), Vec::new(), 1));
    assert_eq!(world.simulator.calls().len(), calls);
    assert_eq!(world.caller().token().await.unwrap().token_id, token);
}

#[tokio::test]
async fn open_connections_and_streams_are_judged_by_the_new_policy_at_once() {
    if !may_be_others() {
        return;
    }
    let before = admin() + &caller("shop", OTHER, "\"GetAccessToken\", \"WatchAccessToken\"");
    let world = World::with(generous(Api::V3), with_callers(&before)).await;
    let shop = Caller::to_as(&world.daemon.home.socket(), OTHER);
    shop.token().await.unwrap();
    let mut watch = shop.watch().await.unwrap();
    let mut untouched = world.caller().watch().await.unwrap();
    let (_, token) = told(&mut watch).await;
    assert_eq!(told(&mut untouched).await.1, token);

    let reconfigure = |callers: &str| world.daemon.home.configure(&world.simulator, &with_callers(callers));
    reconfigure(&(admin() + &caller("shop", OTHER, "\"GetAccessToken\"")));
    let answer = world.caller().reload().await.unwrap();
    assert_eq!(answer.changes, ["callers changed: shop"]);
    let ended = end_of(&mut watch).await;
    assert_eq!((ended.code, ended.reason.as_str()), (Code::PermissionDenied, "METHOD_NOT_ALLOWED"));
    assert_eq!(shop.token().await.unwrap().token_id, token, "what is still allowed goes on");

    reconfigure(&admin());
    assert_eq!(world.caller().reload().await.unwrap().changes, ["callers removed: shop"]);
    assert_eq!(shop.token().await.refused().reason, "CALLER_UNKNOWN");
    world.daemon.logged("the policy knows this peer no more").await;

    reconfigure(&(admin() + &caller("store", OTHER, "\"GetAccessToken\"")));
    assert_eq!(world.caller().reload().await.unwrap().changes, ["callers added: store"]);
    assert_eq!(shop.token().await.unwrap().token_id, token);
    let status = world.caller().status().await.unwrap();
    let store = status.callers.iter().find(|caller| caller.name == "store").unwrap();
    assert_eq!(store.last_token_id, token);
    assert!(
        futures_util::future::poll_immediate(untouched.message()).await.is_none(),
        "the others' streams go on"
    );
}

#[tokio::test]
async fn a_call_that_began_before_its_caller_lost_the_right_to_it_does_nothing_when_its_message_comes() {
    let world = World::of(Api::V3).await;
    let admin = world.caller();
    admin.token().await.unwrap();
    admin.lockdown(None, "stolen laptop").await.unwrap();
    let raw = world.daemon.raw_caller().await;
    let mut begun = Vec::new();
    for path in [UNLOCK, LOCKDOWN, RELOAD, GET_STATUS, VERIFY_SIGN] {
        begun.push((path, raw.begin(path).await));
    }
    let setup = Setup { allow: vec!["WatchAccessToken", "Admin:GetStatus"], ..Setup::default() };
    world.daemon.home.configure(&world.simulator, &setup);
    admin.reload().await.unwrap();
    for (path, call) in begun {
        let answer = call.end(&[]).await;
        if path == GET_STATUS {
            assert!(answer.error.is_none(), "what is still allowed goes on");
            continue;
        }
        let refused = answer.refused();
        let told = (refused.code, refused.reason.as_str());
        assert_eq!(told, (Code::PermissionDenied, "METHOD_NOT_ALLOWED"), "{path}: {refused:?}");
    }
    assert_eq!(admin.state().await, BrokerState::LockedDown);
}

#[tokio::test]
async fn a_reload_that_waits_for_another_is_judged_by_what_that_one_decided() {
    let world = World::of(Api::V3).await;
    // The first login is over: the next call is the proof.
    world.caller().token().await.unwrap();
    let admin = world.daemon.raw_caller().await;
    rotate(&world.simulator);
    world.daemon.home.write_credentials(&world.simulator);
    let setup = Setup { allow: vec!["GetAccessToken", "Admin:GetStatus"], ..Setup::default() };
    world.daemon.home.configure(&world.simulator, &setup);
    world.simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(2) }));
    let next = world.simulator.next_call();
    world.daemon.signal(Signal::SIGHUP);
    soon("the proof", next).await;
    let refused = admin.send(RELOAD, &[], &[]).await.unwrap().refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "METHOD_NOT_ALLOWED"));
    let status = world.caller().status().await.unwrap();
    assert_eq!(status.credentials.unwrap().generation, 2, "the first one is in force");
}

#[tokio::test]
async fn new_credentials_are_proved_by_one_login_and_replace_the_old() {
    for (api, generation) in [(Api::V2, Generation::V2), (Api::V3, Generation::V3)] {
        let world = World::of(api).await;
        let mut watch = world.caller().watch().await.unwrap();
        let (_, old) = told(&mut watch).await;
        let signed_before =
            world.simulator.callback(&CallbackSpec { api: generation, ..CallbackSpec::default() });
        rotate(&world.simulator);
        world.daemon.home.write_credentials(&world.simulator);
        let calls = world.simulator.calls().len();

        let answer = world.caller().reload().await.unwrap();
        assert_eq!(answer.credential_generation, 2);
        assert!(answer.changes[0].contains("proved by a login"), "{:?}", answer.changes);
        assert_eq!(world.simulator.calls().len(), calls + 1);
        let (reason, new) = told(&mut watch).await;
        assert_eq!(reason, TokenReason::CredentialsChanged);
        assert_ne!(new, old);
        assert_eq!(world.caller().token().await.unwrap().token_id, new);
        let status = world.caller().status().await.unwrap();
        assert_eq!(status.credentials.unwrap().generation, 2);
        assert!(status.recent_security_events.iter().any(|event| event.event == "credentials_replaced"));

        // Nothing is kept of the old set by itself.
        let verdict =
            async |body| world.caller().verify(Subject::Callback(body), None).await.unwrap().verdict();
        assert_eq!(verdict(signed_before).await, Verdict::Invalid);
        let signed_now =
            world.simulator.callback(&CallbackSpec { api: generation, ..CallbackSpec::default() });
        assert_eq!(verdict(signed_now).await, Verdict::Valid);
    }
}

#[tokio::test]
async fn credentials_that_the_upstream_refuses_change_nothing_whoever_asks() {
    let mut world = World::of(Api::V3).await;
    let mut watch = world.caller().watch().await.unwrap();
    let (_, token) = told(&mut watch).await;
    let callback = world.simulator.callback(&CallbackSpec { api: Generation::V3, ..CallbackSpec::default() });
    world.daemon.home.write_secret("api-secret", "wrong");
    world.daemon.home.write_secret("callback-secret", "wrong-as-well");

    let refused = world.caller().reload().await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "CREDENTIALS_REJECTED"));
    assert!(refused.message.starts_with("nothing was changed"), "{}", refused.message);
    world.daemon.signal(Signal::SIGHUP);
    world.daemon.logged("reload refused: nothing was changed").await;

    let status = world.caller().status().await.unwrap();
    assert_eq!(status.state(), BrokerState::Fresh);
    assert_eq!((status.credentials.unwrap().generation, status.token.unwrap().token_id), (1, token));
    let found = world.caller().verify(Subject::Callback(callback), None).await.unwrap();
    assert_eq!((found.verdict(), found.key_generation()), (Verdict::Valid, KeyGeneration::Current));
    assert!(futures_util::future::poll_immediate(watch.message()).await.is_none());
    // And the old set still gets tokens.
    world.simulator.revoke_access_tokens();
    let old = world.caller().token().await.unwrap().token_id;
    let renewed = world.caller().token_for(Duration::ZERO, &old, None).await.unwrap();
    assert!(world.simulator.is_live(&renewed.access_token));
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hangup_reloads_as_the_command_does() {
    let world = World::of(Api::V3).await;
    let old = world.caller().token().await.unwrap().token_id;
    rotate(&world.simulator);
    world.daemon.home.write_credentials(&world.simulator);
    world.daemon.signal(Signal::SIGHUP);
    world.daemon.logged("\"reloaded: the credentials were replaced").await;
    assert_ne!(world.caller().token().await.unwrap().token_id, old);
}

#[tokio::test]
async fn the_right_credentials_end_an_outage_of_wrong_ones() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = support::Home::new(&simulator, &Setup::default());
    home.write_secret("api-secret", "wrong");
    let daemon = Daemon::start_in(home).await;
    daemon.caller().in_state(BrokerState::CredentialsRejected).await;
    daemon.home.write_credentials(&simulator);
    daemon.caller().reload().await.unwrap();
    assert_eq!(daemon.caller().state().await, BrokerState::Fresh);
    daemon.caller().token().await.unwrap();
}

#[tokio::test]
async fn a_mistake_in_the_file_changes_nothing_and_is_told_with_its_place() {
    let world = World::of(Api::V3).await;
    let config = world.daemon.home.config();
    let right = fs::read_to_string(&config).unwrap();
    let path = config.display().to_string();
    for (wrong, says) in [
        (format!("{right}\nrat = \"5/s\"\n"), "there is no such key under [[caller]]"),
        (right.replace("[state]", "[state"), &*path),
        (right.replace("api-secret\"", "no-such-file\""), "credentials.secret_file: there is no such file"),
    ] {
        fs::write(&config, &wrong).unwrap();
        let refused = world.caller().reload().await.refused();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::FailedPrecondition, "CONFIGURATION_INVALID")
        );
        assert!(refused.message.contains(says), "{}", refused.message);
        world.caller().token().await.unwrap();
    }
    let events = world.caller().status().await.unwrap().recent_security_events;
    assert_eq!(events.iter().filter(|event| event.event == "reload_refused").count(), 3);
}

#[tokio::test]
async fn a_key_that_needs_a_restart_is_refused_by_name_and_nothing_else_is_taken_over() {
    let world = World::of(Api::V3).await;
    let setup = Setup {
        rest: "[limits]\nmax_header_bytes = \"17KiB\"\n".into(),
        callers: Some(admin() + &caller("shop", OTHER, "\"Health\"")),
        log_level: "info",
        ..Setup::default()
    };
    world.daemon.home.configure(&world.simulator, &setup);
    let refused = world.caller().reload().await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "RESTART_NEEDED"));
    assert!(refused.message.contains("log.level and limits.max_header_bytes"), "{}", refused.message);
    let callers = world.caller().status().await.unwrap().callers;
    assert_eq!(callers.iter().map(|caller| caller.name.as_str()).collect::<Vec<_>>(), ["tests"]);
}

#[tokio::test]
async fn previous_keys_come_from_their_section_alone_and_go_with_it() {
    let world = World::of(Api::V3).await;
    let callback = world.simulator.callback(&CallbackSpec { api: Generation::V3, ..CallbackSpec::default() });
    let old = world.simulator.settings();
    let home = &world.daemon.home;
    home.write_secret("old-key", &old.credentials.key);
    home.write_secret("old-secret", &old.credentials.secret);
    home.write_secret("old-callback-secret", &old.callback_secret);
    rotate(&world.simulator);
    home.write_credentials(&world.simulator);
    let previous = "[credentials.previous]\napi = \"v3\"\nkey_file = \"old-key\"\nsecret_file = \"old-secret\"\n\
                    callback_secret_file = \"old-callback-secret\"\nuntil = 2999-01-01T00:00:00Z\n";
    home.configure(&world.simulator, &Setup { rest: previous.into(), ..Setup::default() });
    let answer = world.caller().reload().await.unwrap();
    assert!(answer.changes.iter().any(|change| change.contains("2999-01-01")), "{:?}", answer.changes);
    let found = world.caller().verify(Subject::Callback(callback.clone()), None).await.unwrap();
    assert_eq!((found.verdict(), found.key_generation()), (Verdict::Valid, KeyGeneration::Previous));

    home.configure(&world.simulator, &Setup::default());
    world.caller().reload().await.unwrap();
    let found = world.caller().verify(Subject::Callback(callback), None).await.unwrap();
    assert_eq!(found.verdict(), Verdict::Invalid);
}

#[tokio::test]
async fn another_upstream_takes_over_with_its_tokens() {
    let world = World::of(Api::V2).await;
    let other = Simulator::start(generous(Api::V3)).await.unwrap();
    let mut watch = world.caller().watch().await.unwrap();
    told(&mut watch).await;
    world.daemon.home.write_credentials(&other);
    world.daemon.home.configure(&other, &Setup::default());
    world.caller().reload().await.unwrap();
    let told = soon("the other's token", watch.message()).await.unwrap().unwrap();
    let token = told.token.unwrap();
    assert_eq!((token.base_url, token.api_version.as_str()), (other.base_url(), "v3"));
    assert!(other.is_live(&token.access_token));
    assert_eq!(world.caller().status().await.unwrap().base_url, other.base_url());
}

#[tokio::test]
async fn the_proof_keeps_the_upstream_s_limit() {
    let limit = Limit { calls: 15, window: Duration::from_secs(60) };
    let settings = Settings { limit, ..generous(Api::V3) };
    let watched = Stopwatch::start();
    let world = World::with(settings, Setup { budget: String::new(), ..Setup::default() }).await;
    world.caller().token().await.unwrap();
    let mut outcomes = Vec::new();
    for number in 0..2 {
        world.daemon.home.write_secret("api-secret", &format!("wrong-{number}"));
        outcomes.push(world.caller().reload().await.refused().reason);
    }
    // The first call on a new record leaves none for six seconds, and then one each six.
    assert!(
        outcomes.iter().all(|reason| ["CREDENTIALS_REJECTED", "BUDGET_EXHAUSTED"].contains(&reason.as_str())),
        "{outcomes:?}"
    );
    let (proofs, took) = (world.simulator.calls().len() - 1, watched.read());
    assert!(proofs as u64 <= took.as_secs() / 6, "{proofs} in {took:?}: {outcomes:?}");
    world.caller().token().await.unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let world = World::of(Api::V3).await;
    // The first login is over: the next call is the proof.
    world.caller().token().await.unwrap();
    rotate(&world.simulator);
    world.daemon.home.write_credentials(&world.simulator);
    world.simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_millis(500) }));
    let next = world.simulator.next_call();
    let asking = world.caller();
    let reload = tokio::spawn(async move { asking.reload().await.is_ok() });
    soon("the proof", next).await;
    reload.abort();
    world.daemon.logged("\"reloaded: the credentials were replaced").await;
    let status = world.caller().status().await.unwrap();
    assert_eq!(status.credentials.unwrap().generation, 2);
    let callback = world.simulator.callback(&CallbackSpec { api: Generation::V3, ..CallbackSpec::default() });
    let found = world.caller().verify(Subject::Callback(callback), None).await.unwrap();
    assert_eq!(found.verdict(), Verdict::Valid);
}

#[tokio::test]
async fn reloads_that_come_while_one_is_under_way_wait_and_signals_are_one_more() {
    let world = World::of(Api::V3).await;
    // The first login is over: the next call is the proof.
    world.caller().token().await.unwrap();
    // It leaves the deadline to the broker, so that the answer can't come too late for it.
    let impatient = world.daemon.raw_caller().await;
    rotate(&world.simulator);
    world.daemon.home.write_credentials(&world.simulator);
    world.simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(3) }));
    let next = world.simulator.next_call();
    world.daemon.signal(Signal::SIGHUP);
    soon("the proof", next).await;
    let refused = impatient.send(RELOAD, &[("grpc-timeout", "300m")], b"").await.unwrap().refused();
    assert_eq!(refused.reason, "DEADLINE_TOO_SHORT", "{refused:?}");
    world.daemon.logged("another reload was under way").await;
    for _ in 0..5 {
        world.daemon.signal(Signal::SIGHUP);
    }
    assert_eq!(world.caller().reload().await.unwrap().credential_generation, 2);
    let by_signal = |log: &str| {
        log.lines().filter(|line| line.contains("\"reloaded: ") && line.contains("SIGHUP")).count()
    };
    // That of the signals comes by itself, and once: what came of more would have its turn before the last one here.
    world.daemon.logged_so_that("two were by signal", |log| by_signal(log) >= 2).await;
    world.caller().reload().await.unwrap();
    assert_eq!(by_signal(&world.daemon.log()), 2);
}

#[tokio::test]
async fn who_is_removed_along_with_a_rotation_never_gets_the_new_token() {
    if !may_be_others() {
        return;
    }
    let with_shop = admin() + &caller("shop", OTHER, "\"GetAccessToken\", \"WatchAccessToken\"");
    let world = World::with(generous(Api::V3), with_callers(&with_shop)).await;
    let reconfigure = |callers: &str| world.daemon.home.configure(&world.simulator, &with_callers(callers));
    let (mut ended, mut refused) = (0, 0);
    for round in 0..30 {
        let shop = Caller::to_as(&world.daemon.home.socket(), OTHER);
        let current = shop.token().await.unwrap().token_id;
        let mut watches = Vec::new();
        for _ in 0..4 {
            let mut watch = shop.watch().await.unwrap();
            assert_eq!(told(&mut watch).await.1, current);
            watches.push(watch);
        }
        // Callers may provoke one login each 20 s: this waits until it may be the next, or for another token.
        let waiting = tokio::spawn({
            let (shop, current) = (shop.clone(), current.clone());
            async move { shop.token_for(Duration::ZERO, &current, Some(Duration::from_secs(50))).await }
        });
        world.simulator.set(|settings| {
            settings.credentials =
                Credentials { key: format!("key-of-{round}"), secret: format!("secret-of-{round}") };
        });
        world.daemon.home.write_credentials(&world.simulator);
        reconfigure(&admin());
        let answer = world.caller().reload().await.unwrap();
        assert_eq!(answer.changes[1..], ["callers removed: shop"]);
        let new = world.caller().token().await.unwrap().token_id;
        assert!(answer.changes[0].contains(&new), "{:?}", answer.changes);

        for mut watch in watches {
            // A renewal that the waiting call provoked is told before the end, and is of the old credentials.
            let end = loop {
                match soon("the end of the stream", watch.message()).await {
                    Ok(Some(more)) => assert_ne!(more.token.unwrap().token_id, new, "round {round}"),
                    Ok(None) => break None,
                    Err(status) => break reason_of(&status),
                }
            };
            // The connection of a peer that nobody knows is closed, and may be before the reason has come.
            ended += usize::from(end.as_deref() == Some("CALLER_UNKNOWN"));
        }
        match soon("the waiting call", waiting).await.unwrap() {
            Ok(token) => assert_ne!(token.token_id, new, "round {round}"),
            Err(status) => refused += usize::from(status.reason == "CALLER_UNKNOWN"),
        }
        reconfigure(&with_shop);
        world.caller().reload().await.unwrap();
    }
    println!("{ended} of 120 streams and {refused} of 30 waiting calls were told that they are unknown");
    assert!(ended > 60 && refused > 15, "{ended}, {refused}");
}
