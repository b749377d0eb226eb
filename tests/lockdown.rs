//! Lockdown, of everyone and of one caller: what it stops at once, what goes on, and what it survives.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, os::fd::AsFd, path::Path, time::Duration};

use b2binpay_broker::grpc::proto::{
    BrokerState, GetStatusResponse, LockdownResponse, SignedMessage, Verdict, verify_sign_request::Subject,
};
use b2binpay_simulator::{Api, Fault, FaultKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::{
    Answered, Caller, Daemon, Refused, Setup, Stopwatch, World, end_of, generous, raw::never_reads, soon,
    users::may_be_others,
};
use tokio::{net::UnixStream, process::Command};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const TOKENS: &str = "b2binpay.broker.v1.TokenBrokerService";
const SIGNS: &str = "b2binpay.broker.v1.TokenBrokerService/VerifySign";

fn is_locked_out(refused: &Refused) {
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "LOCKED_DOWN"),
        "{refused:?}"
    );
    assert_eq!(refused.retry_after, None);
}

async fn health(caller: &Caller, service: &str) -> ServingStatus {
    let mut health = HealthClient::new(caller.channel.clone());
    let request = HealthCheckRequest { service: service.to_owned() };
    soon("a health check", health.check(request)).await.expect("an answer").into_inner().status()
}

/// Who holds what, by an answer.
fn holders(answer: &LockdownResponse) -> Vec<(String, String)> {
    let token = |holder: &b2binpay_broker::grpc::proto::TokenHolder| {
        (holder.caller.clone(), holder.token.clone().expect("a token").token_id)
    };
    answer.holders.iter().map(token).collect()
}

/// Asks for a verdict, which takes the credentials but no token.
async fn verifies(caller: &Caller) -> bool {
    let signed = SignedMessage { message: b"m".to_vec(), sign: "00".repeat(32) };
    let found = caller.verify(Subject::SignedMessage(signed), None).await.expect("a verdict");
    found.verdict() == Verdict::Invalid
}

/// Waits until the disk knows of the locks: no answer waits for a slow disk.
async fn written(caller: &Caller) {
    caller.status_where("the disk knows of it", |status| status.locks_problem.is_empty()).await;
}

/// Whether the disk has what an answer tells of, or was slower than the answer.
fn no_worse_than_slow(persisted: bool, problem: &str) -> bool {
    if persisted { problem.is_empty() } else { problem.contains("has not taken it yet") }
}

/// Calls to the upstream so far.
fn calls(world: &World) -> usize {
    world.simulator.calls().to_token_endpoints().count()
}

// ---- everyone

#[tokio::test]
async fn a_lockdown_stops_tokens_at_once_and_signs_are_verified_on() {
    let world = World::of(Api::V2).await;
    let (caller, admin) = (world.caller(), world.caller());
    let token = caller.token().await.unwrap();
    let mut watch = caller.watch().await.unwrap();
    soon("a token", watch.message()).await.unwrap().unwrap();

    let watched = Stopwatch::start();
    let done = admin.lockdown(None, "stolen laptop").await.unwrap();
    let took = watched.read();
    println!("the answer took {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(no_worse_than_slow(done.persisted, &done.problem), "{}", done.problem);
    assert_eq!(holders(&done), [("tests".to_owned(), token.token_id.clone())]);
    let held = done.holders[0].token.as_ref().unwrap();
    let ends = held.expires_at.unwrap().seconds - token.expires_at.unwrap().seconds;
    assert!(ends.abs() <= 1, "{ends}");
    let lock = done.lock.clone().unwrap();
    assert_eq!(
        (lock.caller, lock.reason.as_str(), lock.locked_by.as_str()),
        (None, "stolen laptop", "tests")
    );

    is_locked_out(&end_of(&mut watch).await);
    let refused = world.caller().token().await.refused();
    is_locked_out(&refused);
    assert!(
        refused.message.contains("stolen laptop") && refused.message.contains("`b2binpay-broker unlock`")
    );
    is_locked_out(&world.caller().watch().await.map(|_| ()).unwrap_err());
    assert!(verifies(&admin).await);
    // It is told by a task of its own.
    let not_serving = async {
        while health(&admin, TOKENS).await != ServingStatus::NotServing {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("tokens are no longer served", not_serving).await;
    assert_eq!(health(&admin, SIGNS).await, ServingStatus::Serving);

    let status = admin.status().await.unwrap();
    assert_eq!((status.state(), status.ready, status.token), (BrokerState::LockedDown, false, None));
    assert_eq!(status.locks, [done.lock.unwrap()]);
    assert_eq!(status.callers[0].held_tokens[0].token_id, token.token_id);
    assert_eq!(status.recent_security_events[0].event, "locked_down");

    // Again: nothing changes.
    written(&admin).await;
    assert!(world.daemon.home.lockdown_flag().is_some());
    let again = admin.lockdown(None, "another reason").await.unwrap();
    assert_eq!((again.persisted, again.problem.as_str()), (true, ""));
    assert_eq!((again.lock.unwrap().reason.as_str(), again.holders.len()), ("stolen laptop", 1));

    let before = calls(&world);
    let done = admin.unlock(None).await.unwrap();
    assert_eq!((done.was_locked, done.locks), (true, Vec::new()));
    assert!(no_worse_than_slow(done.persisted, &done.problem), "{}", done.problem);
    let fresh = world.caller().token().await.unwrap();
    assert_ne!(fresh.token_id, token.token_id);
    assert_eq!(calls(&world), before + 1, "a login");
    written(&admin).await;
    assert_eq!(world.daemon.home.lockdown_flag(), None);
    let again = admin.unlock(None).await.unwrap();
    assert_eq!((again.was_locked, again.persisted), (false, true));
}

#[tokio::test]
async fn a_lockdown_survives_a_kill_and_asks_nothing_of_the_upstream_until_it_is_lifted() {
    let world = World::of(Api::V3).await;
    world.caller().token().await.unwrap();
    world.caller().lockdown(None, "stolen laptop").await.unwrap();
    written(&world.caller()).await;
    let calls = |world: &World| world.simulator.calls().to_token_endpoints().count();
    let before = calls(&world);
    let World { simulator, daemon } = world;
    let daemon = Daemon::start_in(daemon.kill().await).await;
    let world = World { simulator, daemon };

    let status = world.caller().status().await.unwrap();
    assert_eq!((status.state(), status.locks.len()), (BrokerState::LockedDown, 1));
    assert_eq!(status.locks[0].reason, "stolen laptop");
    is_locked_out(&world.caller().token().await.refused());
    assert!(verifies(&world.caller()).await);
    assert_eq!(calls(&world), before);
    world.caller().unlock(None).await.unwrap();
    world.caller().token().await.unwrap();
}

#[tokio::test]
async fn a_flag_that_makes_no_sense_means_locked() {
    let world = World::of(Api::V3).await;
    world.caller().lockdown(None, "stolen laptop").await.unwrap();
    written(&world.caller()).await;
    let flag = world.daemon.home.lockdown_flag().expect("a flag");
    let World { simulator, daemon } = world;
    let home = daemon.kill().await;
    let whole = fs::read_to_string(&flag).unwrap();
    fs::write(&flag, &whole[..whole.len() / 2]).unwrap();
    let daemon = Daemon::start_in(home).await;
    let world = World { simulator, daemon };
    let refused = world.caller().token().await.refused();
    is_locked_out(&refused);
    assert!(refused.message.contains(&flag.display().to_string()), "{}", refused.message);
    let status = world.caller().status().await.unwrap();
    assert_eq!(status.locks[0].locked_by, "the broker itself");
    assert!(world.caller().unlock(None).await.unwrap().was_locked);
    written(&world.caller()).await;
    assert!(!flag.exists());
    world.caller().token().await.unwrap();
}

/// Puts a file where the state directory was: it can be neither read nor written.
fn spoil(state: &Path) {
    fs::rename(state, state.with_extension("kept")).unwrap();
    fs::write(state, "no directory").unwrap();
}

fn mend(state: &Path) {
    fs::remove_file(state).unwrap();
    fs::rename(state.with_extension("kept"), state).unwrap();
}

#[tokio::test]
async fn a_lockdown_that_can_t_be_written_acts_and_says_so_and_is_written_later() {
    let world = World::of(Api::V3).await;
    world.caller().token().await.unwrap();
    let state = world.daemon.home.path().join("state");
    spoil(&state);
    let done = world.caller().lockdown(None, "stolen laptop").await.unwrap();
    assert!(!done.persisted && !done.problem.is_empty());
    assert_eq!(done.holders.len(), 1);
    is_locked_out(&world.caller().token().await.refused());
    let problem = |has: String| move |status: &GetStatusResponse| status.locks_problem.contains(&has);
    world.caller().status_where("it can't be written", problem("can't write".into())).await;
    // Now that it is known, whoever asks is told which file it is.
    world.caller().status_where("the file is named", problem(state.display().to_string())).await;
    mend(&state);
    written(&world.caller()).await;
    assert!(world.daemon.home.lockdown_flag().is_some());

    // The other way round: what can't be removed doesn't keep anybody locked out, until a restart.
    spoil(&state);
    let done = world.caller().unlock(None).await.unwrap();
    assert!(done.was_locked && !done.persisted && !done.problem.is_empty());
    world.caller().status_where("it can't be removed", problem("can't remove".into())).await;
    mend(&state);
    world.caller().token().await.unwrap();
    written(&world.caller()).await;
    assert!(world.daemon.home.lockdown_flag().is_none());
}

#[tokio::test]
async fn those_who_wait_are_refused_at_once() {
    let world = World::of(Api::V3).await;
    let token = world.caller().token().await.unwrap();
    world.simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let waiting = world.caller();
    let waits =
        tokio::spawn(
            async move { waiting.token_for(Duration::ZERO, &token.token_id, None).await.map(|_| ()) },
        );
    soon("a second login", world.simulator.wait_for_calls(2)).await;
    let watched = Stopwatch::start();
    world.caller().lockdown(None, "stolen laptop").await.unwrap();
    is_locked_out(&waits.await.unwrap().unwrap_err());
    assert!(watched.read() < Duration::from_secs(2), "{:?}", watched.read());
}

#[tokio::test]
async fn who_hangs_up_in_the_middle_has_locked_and_unlocked_all_the_same() {
    let world = World::of(Api::V3).await;
    world.caller().token().await.unwrap();
    // A disk that can't be written to makes the broker wait for as long as it ever does.
    let state = world.daemon.home.path().join("state");
    spoil(&state);
    for round in 0..20 {
        let asking = world.caller();
        asking.status().await.unwrap();
        let asked = tokio::spawn(async move { asking.lockdown(None, "stolen laptop").await.is_ok() });
        // Somewhere between the request and its answer: whichever it is, it is all or nothing.
        world.caller().status_where("it is locked", |status| !status.locks.is_empty()).await;
        asked.abort();
        let _ = asked.await;
        is_locked_out(&world.caller().token().await.refused());
        let events = || async { world.caller().status().await.unwrap().recent_security_events };
        world
            .caller()
            .status_where("the lockdown is on record", |status| {
                let of =
                    |word: &str| status.recent_security_events.iter().filter(|e| e.event == word).count();
                of("locked_down") == round + 1
            })
            .await;
        assert!(!events().await.is_empty());
        assert!(world.caller().unlock(None).await.unwrap().was_locked);
    }
    world.caller().lockdown(None, "stolen laptop").await.unwrap();
    mend(&state);
    written(&world.caller()).await;
    assert!(world.daemon.home.lockdown_flag().is_some());
}

#[tokio::test]
async fn an_unlock_does_not_wait_for_the_upstream() {
    let world = World::of(Api::V3).await;
    let token = world.caller().token().await.unwrap();
    world.simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let waiting = world.caller();
    let waits =
        tokio::spawn(
            async move { waiting.token_for(Duration::ZERO, &token.token_id, None).await.map(|_| ()) },
        );
    soon("a second login", world.simulator.wait_for_calls(2)).await;
    world.caller().lockdown(None, "stolen laptop").await.unwrap();
    waits.await.unwrap().unwrap_err();
    // The login from before the lockdown still hangs.
    let watched = Stopwatch::start();
    assert!(world.caller().unlock(None).await.unwrap().was_locked);
    assert!(watched.read() < Duration::from_secs(5), "{:?}", watched.read());
}

// ---- connections

/// Waits until the other end has closed it, whatever was left unread; how long that took.
async fn closed(socket: &UnixStream, watched: &Stopwatch) -> Duration {
    loop {
        let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        poll(&mut asked, PollTimeout::ZERO).unwrap();
        if asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            return watched.read();
        }
        assert!(watched.read() < support::PATIENCE, "it stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same connection once more, to look at while something else owns it.
fn copy(socket: &UnixStream) -> UnixStream {
    let copy = socket.as_fd().try_clone_to_owned().unwrap();
    UnixStream::from_std(copy.into()).unwrap()
}

#[tokio::test]
async fn connections_that_carried_tokens_are_closed_and_others_are_not() {
    let world = World::of(Api::V3).await;
    let (with, without) = (world.daemon.peer().await, world.daemon.peer().await);
    let (with_seen, without_seen) = (copy(&with), copy(&without));
    let with = support::RawCaller::over(with).await;
    let without = support::RawCaller::over(without).await;
    world.caller().token().await.unwrap();
    with.token_in_hand().await.unwrap();
    assert!(without.send(support::raw::GET_STATUS, &[], b"").await.unwrap().error.is_none());
    // The lockdown is told on a connection that carried a token itself: its answer arrives all the same.
    let admin = world.caller();
    admin.token().await.unwrap();
    let watched = Stopwatch::start();
    admin.lockdown(None, "stolen laptop").await.unwrap();
    let took = closed(&with_seen, &watched).await;
    println!("closed after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(without.send(support::raw::GET_STATUS, &[], b"").await.unwrap().error.is_none());
    drop(without_seen);
}

#[tokio::test]
async fn who_never_reads_its_tokens_is_cut_off_within_a_second() {
    let world = World::of(Api::V3).await;
    world.caller().token().await.unwrap();
    let socket = world.daemon.peer().await;
    let seen = copy(&socket);
    let deaf = never_reads(socket, 50).await;
    let watched = Stopwatch::start();
    world.caller().lockdown(None, "stolen laptop").await.unwrap();
    let took = closed(&seen, &watched).await;
    println!("cut off after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(deaf);
}

// ---- one caller

const TWO_USERS: &str = "\
[[caller]]\nname = \"tests\"\nunix_user = \"0\"\n\
allow = [\"GetAccessToken\", \"WatchAccessToken\", \"VerifySign\", \"VerifySign:message\", \"Health\", \"Admin\"]\n\
[[caller]]\nname = \"payouts\"\nunix_user = \"4001\"\nallow = [\"GetAccessToken\", \"WatchAccessToken\", \"VerifySign:message\"]\n\
[[caller]]\nname = \"deposits\"\nunix_user = \"4002\"\nallow = [\"GetAccessToken\", \"WatchAccessToken\", \"Admin:GetStatus\"]\n";

async fn two_users() -> World {
    let setup = Setup { callers: Some(TWO_USERS.into()), ..Setup::default() };
    World::with(generous(Api::V3), setup).await
}

#[tokio::test]
async fn one_caller_is_locked_out_and_the_others_are_not() {
    if !may_be_others() {
        return;
    }
    let world = two_users().await;
    let socket = world.daemon.home.socket();
    let (admin, locked, other) = (world.caller(), Caller::to_as(&socket, 4001), Caller::to_as(&socket, 4002));
    let token = locked.token().await.unwrap();
    other.token().await.unwrap();
    let mut watches = [locked.watch().await.unwrap(), other.watch().await.unwrap()];
    for watch in &mut watches {
        soon("a token", watch.message()).await.unwrap().unwrap();
    }
    let before = calls(&world);
    let done = admin.lockdown(Some("payouts"), "leaked logs").await.unwrap();
    assert_eq!(holders(&done), [("payouts".to_owned(), token.token_id.clone())]);
    let [mut ended, mut goes_on] = watches;
    is_locked_out(&end_of(&mut ended).await);
    let refused = Caller::to_as(&socket, 4001).token().await.refused();
    is_locked_out(&refused);
    assert!(refused.message.contains("unlock --caller payouts"), "{}", refused.message);
    assert!(verifies(&Caller::to_as(&socket, 4001)).await);
    assert_eq!(other.token().await.unwrap().token_id, token.token_id);
    let silent = tokio::time::timeout(Duration::from_millis(100), goes_on.message()).await;
    assert!(silent.is_err(), "the other stream goes on");
    let status = admin.status().await.unwrap();
    assert_eq!((status.state(), status.ready), (BrokerState::Fresh, true));
    assert_eq!(status.locks[0].caller.as_deref(), Some("payouts"));

    // Who was locked alone stays locked when everyone is let in again.
    admin.lockdown(None, "all").await.unwrap();
    let done = admin.unlock(None).await.unwrap();
    assert_eq!(done.locks.len(), 1);
    Caller::to_as(&socket, 4002).token().await.unwrap();
    is_locked_out(&Caller::to_as(&socket, 4001).token().await.refused());
    // And across a restart.
    let World { simulator, daemon } = world;
    let daemon = Daemon::start_in(daemon.kill().await).await;
    let world = World { simulator, daemon };
    is_locked_out(&Caller::to_as(&socket, 4001).token().await.refused());
    world.caller().unlock(Some("payouts")).await.unwrap();
    Caller::to_as(&socket, 4001).token().await.unwrap();
    assert!(calls(&world) > before);
}

#[tokio::test]
async fn who_is_locked_out_by_name_lifts_no_lock_and_another_administrator_does() {
    if !may_be_others() {
        return;
    }
    let callers = [("tests", nix::unistd::getuid().as_raw()), ("second", 4003)].map(|(name, uid)| {
        format!(
            "[[caller]]\nname = \"{name}\"\nunix_user = \"{uid}\"\nallow = [\"GetAccessToken\", \"Admin\"]\n"
        )
    });
    let setup = Setup { callers: Some(callers.concat()), ..Setup::default() };
    let world = World::with(generous(Api::V3), setup).await;
    let taken_over = world.caller();
    let other = Caller::to_as(&world.daemon.home.socket(), 4003);
    other.lockdown(Some("tests"), "its laptop is stolen").await.unwrap();
    other.lockdown(None, "all").await.unwrap();
    for caller in [Some("tests"), None, Some("second")] {
        let refused = taken_over.unlock(caller).await.refused();
        is_locked_out(&refused);
        assert!(refused.message.contains("another administrator"), "{}", refused.message);
    }
    // It may still lock.
    taken_over.lockdown(Some("second"), "why not").await.unwrap();
    assert_eq!(taken_over.status().await.unwrap().locks.len(), 3);
    let restarted = Daemon::start_in(world.daemon.kill().await).await;
    is_locked_out(&restarted.caller().unlock(Some("tests")).await.refused());
    drop(world.simulator);
}

#[tokio::test]
async fn who_may_not_lock_does_not_and_what_makes_no_sense_is_refused() {
    if !may_be_others() {
        return;
    }
    let world = two_users().await;
    let socket = world.daemon.home.socket();
    let refused = Caller::to_as(&socket, 4002).lockdown(None, "why not").await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "METHOD_NOT_ALLOWED"));
    let refused = Caller::to_as(&socket, 4002).unlock(None).await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "METHOD_NOT_ALLOWED"));
    let admin = world.caller();
    for (caller, reason, field) in [
        (Some("nobody"), "why", "caller"),
        (Some("no body"), "why", "caller"),
        (Some(""), "why", "caller"),
        (None, "", "reason"),
        (None, "two\nlines", "reason"),
        (None, &"x".repeat(513), "reason"),
    ] {
        let refused = admin.lockdown(caller, reason).await.refused();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
        assert_eq!(refused.fields, [field]);
    }
    assert_eq!(admin.unlock(Some("nobody")).await.refused().fields, ["caller"]);
    assert_eq!(admin.status().await.unwrap().locks, []);
}

// ---- commands

async fn command(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_b2binpay-broker"));
    command
        .args(arguments)
        .env("B2BINPAY_BROKER_ENDPOINT", format!("unix:{}", world.daemon.home.socket().display()));
    let done = soon("the command", command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[tokio::test]
async fn the_commands_lock_and_unlock_and_say_what_came_of_it() {
    let world = World::of(Api::V3).await;
    let token = world.caller().token().await.unwrap();
    let (code, out, err) = command(&world, &["lockdown", "--reason", "stolen laptop"]).await;
    assert_eq!(code, Some(0));
    assert!(no_worse_than_slow(err.is_empty(), &err), "{err}");
    assert!(out.starts_with("LOCKED: everyone, since "), "{out}");
    assert!(
        out.contains("by tests: stolen laptop") && out.contains(&format!("  tests   {}", token.token_id)),
        "{out}"
    );
    let (_, status, _) = command(&world, &["status"]).await;
    assert!(
        status.starts_with("LOCKED_DOWN, not ready") && status.contains("by tests: stolen laptop"),
        "{status}"
    );
    written(&world.caller()).await;
    let config = world.daemon.home.config();
    let (_, checked, _) = command(&world, &["check", "--config", config.to_str().unwrap()]).await;
    assert!(checked.contains("the broker begins locked") && checked.contains("stolen laptop"), "{checked}");
    let (code, _, err) = command(&world, &["token"]).await;
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("stolen laptop"), "{err}");
    let (code, out, _) = command(&world, &["unlock"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "everyone unlocked\n"));
    let (code, out, _) = command(&world, &["unlock"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "everyone was not locked\n"));
    let (code, _, err) = command(&world, &["unlock", "--caller", "nobody"]).await;
    assert_eq!(code, Some(1), "{err}");
    let (code, _, _) = command(&world, &["lockdown"]).await;
    assert_eq!(code, Some(2), "a reason is mandatory");
}
