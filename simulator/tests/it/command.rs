//! The program, as a person runs it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use b2binpay_simulator::Simulator;
use serde_json::Value;

use crate::support::{login_v2, login_v3, start};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_b2binpay-simulator"));
    command.env_remove("B2BINPAY_SIMULATOR");
    command
}

/// A serving program that ends with its test.
struct Serving(Child);

impl Serving {
    fn start(args: &[&str]) -> (Self, Vec<String>) {
        let mut child = program().args(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut greeting = Vec::new();
        for line in lines.map(Result::unwrap) {
            let last = line.starts_with('{') || line.starts_with("Ctrl-C");
            greeting.push(line);
            if last {
                break;
            }
        }
        (Self(child), greeting)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command against a simulator, beside the runtime that serves it.
async fn run(simulator: &Simulator, args: &[&str]) -> Output {
    let (head, tail) = args.split_first().unwrap();
    let mut command = program();
    command.arg(head).args(["--simulator", &simulator.base_url()]).args(tail);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn serving_says_where_it_listens_and_ends_politely() {
    let (mut serving, greeting) = Serving::start(&["--listen", "127.0.0.1:0"]);
    let greeting = greeting.join("\n");
    for part in ["http://127.0.0.1:", "demo-api-key", "demo-api-secret", "curl -s", "/_simulator/"] {
        assert!(greeting.contains(part), "{part} in {greeting}");
    }
    let id = serving.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(serving.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_secret_that_is_not_the_demos_is_not_repeated() {
    let (_serving, greeting) =
        Serving::start(&["serve", "--listen", "127.0.0.1:0", "--password", "not-shown"]);
    assert!(!greeting.join("\n").contains("not-shown"));
}

#[test]
fn scripts_get_one_line_of_json() {
    let (_serving, greeting) = Serving::start(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let line: Value = serde_json::from_str(&greeting[0]).unwrap();
    assert!(line["base_url"].as_str().unwrap().starts_with("http://127.0.0.1:"));
}

#[tokio::test]
async fn faults_are_injected_listed_and_cleared() {
    let simulator = start().await;
    let args = ["fault", "status", "status=503", "--on", "login", "--times", "2"];
    let output = run(&simulator, &args).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(login_v2(&simulator).await.status, 503);
    assert!(text(&run(&simulator, &["fault", "list"]).await.stdout).contains("503"));
    run(&simulator, &["fault", "clear"]).await;
    assert_eq!(login_v2(&simulator).await.status, 200);
    let refused = run(&simulator, &["fault", "stauts"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("stauts"));
}

#[tokio::test]
async fn settings_are_changed_and_calls_are_shown() {
    let simulator = start().await;
    let output = run(&simulator, &["settings", "access_lifetime=60s", "limit_calls=1", "secret=123"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(simulator.credentials().secret, "123");
    login_v3(&simulator).await;
    login_v3(&simulator).await;
    let calls = text(&run(&simulator, &["calls"]).await.stdout);
    assert!(
        calls.contains("accepted") && calls.contains("throttled") && calls.contains("2 token calls"),
        "{calls}"
    );
    let json: Value = serde_json::from_slice(&run(&simulator, &["calls", "--json"]).await.stdout).unwrap();
    assert_eq!(json["calls"][1]["status"], 429);
}

#[tokio::test]
async fn a_callback_is_printed_or_its_failure_is_told() {
    let simulator = start().await;
    let output =
        run(&simulator, &["callback", "--api", "v2", "--change-amount-to", "9", "--status", "-1"]).await;
    let body: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(body.pointer("/included/1/attributes/amount"), Some(&"9".into()));
    let nowhere = format!("{}/nowhere", simulator.base_url());
    let refused = run(&simulator, &["callback", &nowhere, "--tries", "1"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("200"));
}

#[tokio::test]
async fn tokens_are_revoked() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    assert!(run(&simulator, &["revoke", "access"]).await.status.success());
    assert!(!simulator.is_live(login.access()));
}

#[tokio::test]
async fn a_simulator_that_is_not_there_is_exit_69() {
    let simulator = start().await;
    simulator.pause_listening().await;
    let output = run(&simulator, &["calls"]).await;
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("--simulator"));
}
