//! Showing what a running simulator was asked.

use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::CliError;
use super::remote::Remote;

#[derive(Args)]
pub(super) struct CallsArgs {
    /// Only calls with higher numbers
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    after: u64,
    /// If there is none yet, wait for one this long
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    wait: String,
    /// Print all that is known, and a summary, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) async fn calls(args: CallsArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let wait = args.wait.replace(' ', "");
    let path = format!("calls?after={}&wait={wait}", args.after);
    let answer = args.remote.call(Method::GET, &path, None).await?;
    if args.json {
        return Ok(out.write_all(&answer)?);
    }
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| CliError::Refused(format!("its answer is no record of calls: {error}")))?;
    for call in answer["calls"].as_array().into_iter().flatten() {
        writeln!(out, "{}", line(call))?;
    }
    let summary = &answer["summary"];
    writeln!(
        out,
        "{} token calls, {} at most in any 60 s; {} calls with a dead token",
        summary["token_calls"], summary["most_token_calls_in_60_s"], summary["calls_with_dead_token"]
    )?;
    Ok(())
}

/// A call in one line. The columns stay where they are, so that the eye finds them.
fn line(call: &Value) -> String {
    let word = |name: &str| call[name].as_str().unwrap_or("-").to_owned();
    let status = call["status"].as_u64().map_or("-".to_owned(), |status| status.to_string());
    let fault = call["fault"].as_str().map(|fault| format!("  fault: {fault}")).unwrap_or_default();
    let line = format!(
        "{:>5} {:>10.3}s  {:<8}{:<3} {:>4}  {}{fault}",
        call["number"].as_u64().unwrap_or_default(),
        call["at"].as_f64().unwrap_or_default(),
        word("endpoint"),
        word("api"),
        status,
        word("outcome"),
    );
    line.trim_end().to_owned()
}
