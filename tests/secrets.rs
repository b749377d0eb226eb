//! Promise 4: never a secret outside. A daemon that logs all it can is led through good and bad days, and everything that
//! it wrote or answered is searched.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fmt::Write as _, fs, time::Duration};

use b2binpay_broker::grpc::proto::{SignedMessage, TokenResponse, Verdict, verify_sign_request::Subject};
use b2binpay_simulator::{
    Api, CallbackForm, CallbackSpec, Credentials, Fault, FaultKind, Settings, Simulator, Target,
    settings::Generation,
};
use nix::sys::signal::Signal;
use support::{
    Answered, Caller, Daemon, Home, Search, Setup, generous, hex, search::base64, soon, table::all_pass,
};

const KEY: &str = "k3y-of-the-account-7f1c";
const SECRET: &str = "s3cret-of-the-account-91be";
const CALLBACK_SECRET: &str = "callb4ck-secret-55aa";
/// Stands where a person may read it, so that a search which finds nothing is not one that looks nowhere.
const CONTROL: &str = "control-4242";

#[test]
fn the_search_finds_what_is_there() {
    let search = Search::of([SECRET, CONTROL]);
    for offset in 0..3 {
        let around = format!("{}{SECRET} and more", "x".repeat(offset));
        assert_eq!(search.found_in(&base64(around.as_bytes())), [SECRET], "at {offset}");
    }
    let hex = hex(SECRET.as_bytes()).to_uppercase();
    assert_eq!(search.found_in(&format!("a {hex} b")), [SECRET]);
    assert_eq!(search.found_in(&format!("{:?}", SECRET.as_bytes())), [SECRET]);
    assert_eq!(search.found_in(&format!("{CONTROL} {SECRET}")).len(), 2);
    let escaped = Search::of(["a \"quoted\" secret"]);
    assert_eq!(escaped.found_in(r#"{"x":"a \"quoted\" secret"}"#).len(), 1);
    assert!(search.found_in("nothing of the kind").is_empty());
    let bytes = [b"\0\xff".as_slice(), SECRET.as_bytes(), b"\0"].concat();
    assert_eq!(search.found_in_bytes(&bytes), [SECRET]);
}

/// What was seen of a daemon from outside, and what should not have been.
#[derive(Default)]
struct Seen {
    text: String,
    tokens: Vec<String>,
}

impl Seen {
    fn note(&mut self, text: impl std::fmt::Debug) {
        let _ = writeln!(self.text, "{text:?}");
    }

    async fn token(&mut self, caller: &Caller, min_validity: Duration, rejected: &str) -> Option<String> {
        match caller.token_for(min_validity, rejected, Some(Duration::from_secs(5))).await {
            Ok(token) => {
                self.tokens.push(token.access_token);
                Some(token.token_id)
            }
            Err(refused) => {
                self.note(refused);
                None
            }
        }
    }
}

fn secret_settings(api: Api) -> Settings {
    Settings {
        credentials: Credentials::new(KEY, SECRET),
        callback_secret: CALLBACK_SECRET.to_owned(),
        access_lifetime: Some(Duration::from_secs(20)),
        ..generous(api)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_written_or_answered_whatever_the_day_brings() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), a_day(api)))).await;
}

async fn a_day(api: Api) {
    let simulator = Simulator::start(secret_settings(api)).await.unwrap();
    let setup = Setup {
        log_level: "trace",
        upstream: "request_timeout = \"1s\"".into(),
        rest: "[token]\nrefresh_at = 0.1\n".into(),
        // The caller's name is what a person may read.
        callers: Some(format!(
            "[[caller]]\nname = \"{CONTROL}\"\nunix_user = \"{}\"\nallow = [\"GetAccessToken\", \"WatchAccessToken\", \
             \"VerifySign\", \"VerifySign:message\", \"Admin\"]\n",
            nix::unistd::getuid()
        )),
        ..Setup::default()
    };
    let mut seen = Seen::default();
    let echo = |status| FaultKind::status(status, Some(SECRET), &format!("{KEY}:{SECRET} are unknown here"));
    simulator.inject(Fault::new(echo(500)));
    let mut daemon = Daemon::start(&simulator, setup).await;
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();

    // Each renewal meets something else.
    for kind in [
        echo(503),
        FaultKind::status(400, None, SECRET),
        FaultKind::BadTokenChars { characters: b2binpay_simulator::fault::BadCharacters::Newline },
        FaultKind::MissingToken,
        FaultKind::TruncatedBody,
        FaultKind::ResetAfter,
        FaultKind::BadJson,
        FaultKind::WrongSign,
        FaultKind::Redirect { location: format!("http://{KEY}:{SECRET}@127.0.0.1:1/{SECRET}"), status: 307 },
    ] {
        // Under v3 each 400 is a refusal, which would be waited out.
        let refusal = matches!(kind, FaultKind::Status { status: 400, .. });
        if !(refusal && api == Api::V3) {
            let target = if kind == FaultKind::WrongSign { Target::Login } else { Target::Token };
            simulator.inject(Fault::new(kind).on(target));
        }
    }
    for _ in 0..3 {
        let told = soon("a token", watch.message()).await.unwrap().unwrap().token.unwrap();
        seen.tokens.push(told.access_token);
        seen.note(caller.status().await.unwrap());
        seen.token(&caller, Duration::from_secs(17), "").await;
    }
    let status = caller.status_where("the faults are over", |_| simulator.waiting_faults().len() <= 1).await;
    seen.note(status);
    simulator.clear_faults();
    simulator.spend_refresh_tokens();
    let id = seen.token(&caller, Duration::ZERO, "").await.unwrap_or_default();
    seen.token(&caller, Duration::ZERO, &id).await;
    seen.token(&caller, Duration::ZERO, &id).await;

    judge_signs(&simulator, api, &caller, &mut seen).await;
    look_around(&daemon, &mut seen);

    // The account's owner changes the secret; the broker's is refused from now on.
    simulator.set(|settings| "another".clone_into(&mut settings.credentials.secret));
    simulator.spend_refresh_tokens();
    let refused = caller.status_where("the credentials are refused", |status| {
        status.state() == b2binpay_broker::grpc::proto::BrokerState::CredentialsRejected
    });
    seen.note(refused.await);
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;
    daemon.logged("\"stopped\"").await;

    search(&daemon, &simulator, &seen);
}

/// Signs of all sorts; what comes back of them is no secret.
async fn judge_signs(simulator: &Simulator, api: Api, caller: &Caller, seen: &mut Seen) {
    let generation = if api == Api::V2 { Generation::V2 } else { Generation::V3 };
    for form in [CallbackForm::Genuine, CallbackForm::WrongSign, CallbackForm::OtherKey] {
        let spec = CallbackSpec { api: generation, form, ..CallbackSpec::default() };
        seen.note(caller.verify(Subject::Callback(simulator.callback(&spec)), None).await);
    }
    let message = SignedMessage { message: SECRET.into(), sign: SECRET.into() };
    let found = caller.verify(Subject::SignedMessage(message), None).await.unwrap();
    assert_eq!(found.verdict(), Verdict::Invalid);
    seen.note(found);
    let token = seen.tokens[0].clone();
    let answer = TokenResponse { time: token.clone(), refresh_token: token.clone(), sign: token.clone() };
    seen.note(caller.verify(Subject::TokenResponse(answer), None).await);
    // A token where its name belongs, and a secret where a callback does.
    seen.note(caller.token_for(Duration::ZERO, &token, None).await.refused());
    for body in [
        SECRET.to_owned(),
        format!("{{\"data\":\"{SECRET}\"}}"),
        format!("{{\"{SECRET}\":1,\"{SECRET}\":1}}"),
    ] {
        seen.note(caller.verify(Subject::Callback(body.into_bytes()), None).await);
    }
}

/// What other processes can see of it, and what it leaves on disk.
fn look_around(daemon: &Daemon, seen: &mut Seen) {
    for file in ["cmdline", "environ", "comm", "status"] {
        // Root may read what the daemon's own user may not.
        let content = fs::read(format!("/proc/{}/{file}", daemon.pid())).unwrap_or_default();
        let _ = writeln!(seen.text, "{}", String::from_utf8_lossy(&content));
    }
    let _ = writeln!(seen.text, "{}", fs::read_to_string(daemon.home.record()).unwrap());
}

fn search(daemon: &Daemon, simulator: &Simulator, seen: &Seen) {
    let mut secrets: Vec<_> = [KEY, SECRET, CALLBACK_SECRET].into();
    assert!(seen.tokens.len() > 3, "{}", seen.tokens.len());
    secrets.extend(seen.tokens.iter().map(String::as_str));
    // Of each token the part that no other has, too.
    secrets.extend(seen.tokens.iter().map(|token| token.rsplit_once('.').unwrap().1));
    let search = Search::of(secrets);
    let log = daemon.log();
    assert_eq!(search.found_in(&log), [""; 0], "in the log:\n{log}");
    assert_eq!(search.found_in(&seen.text), [""; 0], "in answers:\n{}", seen.text);
    // Refresh tokens, and access tokens that nobody was given, begin like all JWTs.
    for text in [&log, &seen.text] {
        assert!(!text.contains("eyJ"), "a token of some sort:\n{text}");
    }
    let control = Search::of([CONTROL]);
    assert_eq!(control.found_in(&log), [CONTROL], "the log tells too little to prove anything:\n{log}");
    assert_eq!(control.found_in(&seen.text), [CONTROL], "{}", seen.text);
    // What libraries say at that level holds headers and frames: they are not let speak.
    for library in ["h2", "hyper", "rustls", "reqwest", "tonic", "tower"] {
        assert!(!log.contains(&format!("\"target\":\"{library}")), "{library} speaks:\n{log}");
    }
    assert!(log.lines().count() > 20 && simulator.calls().len() > 10, "{log}");
}

type Spoil = fn(&Home);

#[tokio::test]
async fn a_bad_configuration_is_told_without_its_secrets() {
    let simulator = Simulator::start(secret_settings(Api::V3)).await.unwrap();
    let spoils: [(&str, Spoil); 6] = [
        ("a secret in the file", |home| append(home, &format!("secret = \"{SECRET}\"\n"))),
        ("a secret that breaks the syntax", |home| append(home, &format!("[x]\ny = {SECRET}\n"))),
        ("a secret for a key", |home| append(home, &format!("\"{SECRET}\" = 1\n"))),
        ("a secret for a name", |home| append(home, &format!("[[caller]]\nname = \"{SECRET} x\"\n"))),
        ("white space around a secret", |home| home.write_secret("api-secret", &format!(" {SECRET} "))),
        ("two lines of secrets", |home| home.write_secret("api-secret", &format!("{KEY}\n{SECRET}"))),
    ];
    for (what, spoil) in spoils {
        let home = Home::new(&simulator, &Setup { log_level: "trace", ..Setup::default() });
        spoil(&home);
        let mut daemon = Daemon::spawn(home);
        assert_eq!(daemon.ended().await.code(), Some(78), "{what}");
        daemon.logged("b2binpay-broker: ").await;
        let log = daemon.log();
        assert_eq!(Search::of([KEY, SECRET, CALLBACK_SECRET]).found_in(&log), [""; 0], "{what}: {log}");
        assert!(log.contains("config.toml") || log.contains("api-secret"), "{what}: {log}");
    }
    assert_eq!(simulator.calls().len(), 0);
}

fn append(home: &Home, text: &str) {
    let whole = fs::read_to_string(home.config()).unwrap() + text;
    fs::write(home.config(), whole).unwrap();
}
