//! What is in a daemon's memory, and what is there no more. A core holds the same: it is read as root reads it, from outside.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, time::Duration};

use b2binpay_broker::grpc::proto::{Verdict, verify_sign_request::Subject};
use b2binpay_simulator::{Api, CallbackSpec, Credentials, Settings, Simulator, settings::Generation};
use support::{Daemon, Home, Search, Setup, generous, raw::never_reads, soon, users::may_be_others};
use tokio::process::Command;

// With characters that JSON and forms write otherwise.
const OLD: [&str; 3] =
    ["0ld\"key of\\the account-7f1c", "0ld\"secret of\\the account-91be", "0ld\"callback secret-55aa"];
const NEW: [&str; 3] =
    ["n3w\"key of\\the account-0c4d", "n3w\"secret of\\the account-e1aa", "n3w\"callback secret-77bb"];

/// How long what is freed a moment later may take to be freed: the end of a connection, above all.
const MOMENT: Duration = Duration::from_secs(10);

fn settings(api: Api) -> Settings {
    Settings {
        credentials: Credentials::new(OLD[0], OLD[1]),
        callback_secret: OLD[2].to_owned(),
        ..generous(api)
    }
}

fn in_memory<'s>(search: &'s Search, daemon: &Daemon) -> Vec<&'s str> {
    search.found_in_memory_of(daemon.pid()).expect("root may read it")
}

/// Waits until nothing that is searched for is in memory.
async fn gone(search: &Search, daemon: &Daemon) {
    let looking = async {
        loop {
            let found = in_memory(search, daemon);
            if found.is_empty() {
                return;
            }
            // There is no event for memory that is overwritten: it is looked at again.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(MOMENT, looking).await.is_ok();
    assert!(in_time, "still in memory: {:?}", in_memory(search, daemon));
}

/// The part of a token that no other has.
fn distinct(token: &str) -> &str {
    token.rsplit_once('.').map_or(token, |(_, last)| last)
}

/// Uses the broker in every way that brings secrets into its memory.
async fn use_it(daemon: &Daemon, simulator: &Simulator, api: Api) -> String {
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();
    let told = soon("a token", watch.message()).await.unwrap().unwrap().token.unwrap();
    for _ in 0..20 {
        assert_eq!(caller.token().await.unwrap().access_token, told.access_token);
    }
    let generation = if api == Api::V2 { Generation::V2 } else { Generation::V3 };
    let callback = simulator.callback(&CallbackSpec { api: generation, ..CallbackSpec::default() });
    let found = caller.verify(Subject::Callback(callback), None).await.unwrap();
    assert_eq!(found.verdict(), Verdict::Valid);
    distinct(&told.access_token).to_owned()
}

#[tokio::test]
async fn after_a_reload_nothing_is_left_of_the_old_credentials_and_their_token() {
    if !may_be_others() {
        return;
    }
    for api in [Api::V2, Api::V3] {
        let simulator = Simulator::start(settings(api)).await.unwrap();
        let daemon = Daemon::start(&simulator, Setup::default()).await;
        // Streams that go on through it, one of which nobody reads.
        let caller = daemon.caller();
        let mut watch = caller.watch().await.unwrap();
        let _unread = caller.watch().await.unwrap();
        soon("a token", watch.message()).await.unwrap().unwrap();
        let token = use_it(&daemon, &simulator, api).await;
        let old: Vec<_> = if api == Api::V2 { OLD[..2].to_vec() } else { OLD.to_vec() };
        // It would be found: what is in use is there.
        let planted = Search::of([OLD[1], token.as_str()]);
        let mut wanted = vec![OLD[1], token.as_str()];
        wanted.sort_unstable();
        assert_eq!(in_memory(&planted, &daemon), wanted, "{api:?}");

        simulator.set(|settings| {
            settings.credentials = Credentials::new(NEW[0], NEW[1]);
            settings.callback_secret = NEW[2].to_owned();
        });
        daemon.home.write_credentials(&simulator);
        caller.reload().await.unwrap();
        let next = soon("the next token", watch.message()).await.unwrap().unwrap().token.unwrap();
        assert_eq!(use_it(&daemon, &simulator, api).await, distinct(&next.access_token));

        gone(&Search::of(old.into_iter().chain([token.as_str()])), &daemon).await;
        let now = Search::of([NEW[1], distinct(&next.access_token)]);
        assert_eq!(in_memory(&now, &daemon).len(), 2);
    }
}

#[tokio::test]
async fn after_a_lockdown_nothing_is_left_of_the_tokens_whoever_did_not_read_them() {
    if !may_be_others() {
        return;
    }
    let simulator = Simulator::start(settings(Api::V2)).await.unwrap();
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();
    soon("a token", watch.message()).await.unwrap().unwrap();
    let token = use_it(&daemon, &simulator, Api::V2).await;
    // The same of all that the simulator gives, refresh tokens included; no other text has it.
    let whole = caller.token().await.unwrap().access_token;
    let (header, _) = whole.split_once('.').unwrap();
    // One that asked and has no room for the answers: they wait in the broker.
    let deaf = never_reads(daemon.peer().await, 50).await;
    let search = Search::of([token.as_str(), header]);
    assert_eq!(in_memory(&search, &daemon).len(), 2, "it would be found");

    caller.lockdown(None, "stolen laptop").await.unwrap();
    gone(&search, &daemon).await;
    drop(deaf);
    assert_eq!(in_memory(&Search::of([OLD[1]]), &daemon).len(), 1, "the credentials stay");
    caller.unlock(None).await.unwrap();
    assert_ne!(distinct(&daemon.caller().token().await.unwrap().access_token), token);
}

#[tokio::test]
async fn no_other_process_of_the_user_can_read_the_memory() {
    const USER: u32 = 54_321;
    if !may_be_others() {
        return;
    }
    // What the kernel asks of whoever opens any of these is what it asks of a debugger.
    let can_read = async |pid: u32, file: &str| {
        let read =
            Command::new("head").args(["-c1", &format!("/proc/{pid}/{file}")]).uid(USER).gid(USER).output();
        !String::from_utf8_lossy(&read.await.unwrap().stderr).contains("Permission denied")
    };
    let mut open = Command::new("sleep").arg("1000").uid(USER).gid(USER).kill_on_drop(true).spawn().unwrap();
    let simulator = Simulator::start(settings(Api::V3)).await.unwrap();
    let daemon = Daemon::spawn_as(Home::new(&simulator, &Setup::default()), USER);
    daemon.logged("\"serving\"").await;
    for file in ["environ", "mem"] {
        assert!(can_read(open.id().unwrap(), file).await, "{file} of a process that protects nothing");
        assert!(!can_read(daemon.pid(), file).await, "{file} of the daemon");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    open.kill().await.unwrap();
}
