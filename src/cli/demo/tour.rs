//! `demo --tour`: a walk along what the broker is for. Each command that is shown is run, and what is shown is what it
//! said.

use std::{
    collections::BTreeSet,
    env,
    io::{self, Write},
    process::{Output, Stdio},
    time::Duration,
};

use b2binpay_simulator::{CallbackForm, CallbackSpec, Fault, FaultKind, Generation, Simulator};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    task::JoinSet,
    time::timeout,
};

use super::{DemoApi, DemoFailed, home::DemoHome};
use crate::clock::{Clock, SystemClock};

/// How long any step may take before the tour says that something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many services the tour plays.
const SERVICES: usize = 20;

/// Walks. Ends when everything was shown, or with the first step that does not do what it should.
pub(super) async fn walk(
    simulator: &Simulator,
    home: &DemoHome,
    api: DemoApi,
    out: &mut dyn Write,
) -> Result<(), DemoFailed> {
    let generation = if api == DemoApi::V2 { Generation::V2 } else { Generation::V3 };
    let mut tour = Tour { simulator, endpoint: home.endpoint(), generation, out };
    tour.title("A tour of b2binpay-broker, on this machine, with nothing real")?;
    tour.a_token().await?;
    tour.many_services().await?;
    tour.rotation().await?;
    tour.callbacks().await?;
    tour.trouble().await?;
    tour.say("That was the tour. `demo` alone keeps everything running, with lines to paste.")?;
    Ok(())
}

struct Tour<'a> {
    simulator: &'a Simulator,
    endpoint: String,
    generation: Generation,
    out: &'a mut dyn Write,
}

impl Tour<'_> {
    async fn a_token(&mut self) -> Result<(), DemoFailed> {
        self.title("1. A token")?;
        self.say("The broker holds the only copy of the credentials. A service asks it for a token:")?;
        let token = self.shown(&["token"], None).await?;
        let live = self.simulator.is_live(token.trim_end());
        self.expect(live, "the token does not work")?;
        self.say("B2BINPAY (a simulator, here) accepts it.")
    }

    async fn many_services(&mut self) -> Result<(), DemoFailed> {
        self.title("2. Many services, one call of the upstream")?;
        self.say(&format!("{SERVICES} services ask at the same time …"))?;
        let mut asking = JoinSet::new();
        for _ in 0..SERVICES {
            let mut command = self.command(&["token"])?;
            asking.spawn(async move { command.output().await });
        }
        let mut tokens = BTreeSet::new();
        while let Some(answer) = asking.join_next().await {
            tokens.insert(answer.map_err(io::Error::other)??.stdout);
        }
        self.expect(tokens.len() == 1, "they got different tokens")?;
        let calls = self.simulator.calls().to_token_endpoints().count();
        self.say(&format!(
            "… and all have the same token. B2BINPAY was called {calls} time{} since the start; it allows 15 calls a minute.",
            if calls == 1 { "" } else { "s" }
        ))
    }

    async fn rotation(&mut self) -> Result<(), DemoFailed> {
        self.title("3. A fresh one in time")?;
        let lifetime = super::LIFETIME_ON_TOUR.as_secs();
        self.say(&format!(
            "Tokens live {lifetime} s on this tour. A service that watches is told the next one early:"
        ))?;
        self.prompt(&["watch"])?;
        let mut watching = self.command(&["watch"])?.stdout(Stdio::piped()).spawn()?;
        let stdout = watching.stdout.take().ok_or_else(|| io::Error::other("the watch has no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        for _ in 0..2 {
            let line = timeout(PATIENCE, lines.next_line()).await.map_err(io::Error::from)??;
            self.expect(line.is_some(), "the watch ended")?;
            self.result(&line.unwrap_or_default())?;
        }
        watching.kill().await?;
        self.say("No service waited for it, and none was handed one about to end.")
    }

    async fn callbacks(&mut self) -> Result<(), DemoFailed> {
        self.title("4. Callbacks")?;
        let cases = [
            ("B2BINPAY reports a deposit. Is it really B2BINPAY?", CallbackForm::Genuine, 0),
            (
                "The same, after somebody changed the amount:",
                CallbackForm::AmountChanged("9000.000000000000000000".to_owned()),
                1,
            ),
            (
                "A deposit that expired has no transfer, and B2BINPAY doesn't sign it:",
                CallbackForm::NoTransfer,
                3,
            ),
        ];
        for (what, form, exit) in cases {
            self.say(what)?;
            let spec = CallbackSpec { api: self.generation, form, ..CallbackSpec::default() };
            let body = self.simulator.callback(&spec);
            self.exits_with(exit, &["verify"], Some(body)).await?;
        }
        Ok(())
    }

    async fn trouble(&mut self) -> Result<(), DemoFailed> {
        self.title("5. Trouble upstream")?;
        self.say("B2BINPAY hangs from now on. While the token in hand is good, nobody notices:")?;
        self.simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
        let clock = SystemClock;
        let before = clock.now().boot;
        self.shown(&["token"], None).await?;
        let took = clock.now().boot.saturating_since(before);
        self.simulator.clear_faults();
        self.say(&format!(
            "Answered in {} ms, the start of the command included. The broker's own view:",
            took.as_millis()
        ))?;
        self.shown(&["status"], None).await?;
        Ok(())
    }

    // ---- how it is shown

    fn command(&self, arguments: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments)
            .env("B2BINPAY_BROKER_ENDPOINT", &self.endpoint)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command that must succeed, and shows it; its output.
    async fn shown(&mut self, arguments: &[&str], input: Option<Vec<u8>>) -> Result<String, DemoFailed> {
        self.exits_with(0, arguments, input).await
    }

    async fn exits_with(
        &mut self,
        exit: i32,
        arguments: &[&str],
        input: Option<Vec<u8>>,
    ) -> Result<String, DemoFailed> {
        self.prompt(arguments)?;
        let Output { status, stdout, stderr } =
            timeout(PATIENCE, self.output(arguments, input)).await.map_err(io::Error::from)??;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        for line in text.lines().chain(String::from_utf8_lossy(&stderr).lines()) {
            self.result(line)?;
        }
        self.expect(status.code() == Some(exit), "the command did not end as it should")?;
        Ok(text)
    }

    async fn output(&self, arguments: &[&str], input: Option<Vec<u8>>) -> io::Result<Output> {
        let mut command = self.command(arguments)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let Some(input) = input else { return command.output().await };
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&input).await?;
        }
        child.wait_with_output().await
    }

    fn expect(&mut self, kept: bool, otherwise: &str) -> Result<(), DemoFailed> {
        self.out.flush()?;
        if kept { Ok(()) } else { Err(DemoFailed::Tour(otherwise.to_owned())) }
    }

    fn title(&mut self, text: &str) -> Result<(), DemoFailed> {
        Ok(writeln!(self.out, "\n── {text}")?)
    }

    fn say(&mut self, text: &str) -> Result<(), DemoFailed> {
        writeln!(self.out, "\n{text}")?;
        Ok(self.out.flush()?)
    }

    fn prompt(&mut self, arguments: &[&str]) -> Result<(), DemoFailed> {
        writeln!(self.out, "\n  $ {} {}", env!("CARGO_PKG_NAME"), arguments.join(" "))?;
        Ok(self.out.flush()?)
    }

    fn result(&mut self, line: &str) -> Result<(), DemoFailed> {
        writeln!(self.out, "  {line}")?;
        Ok(self.out.flush()?)
    }
}
