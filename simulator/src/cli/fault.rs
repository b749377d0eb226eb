//! Making calls of a running simulator go wrong.

use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::{Map, Value};

use super::CliError;
use super::remote::{Remote, pair};

#[derive(Args)]
pub(super) struct FaultArgs {
    /// What goes wrong (status, html, empty, hang, reset_before, reset_after, redirect, …), or: list, clear
    #[arg(value_name = "KIND|list|clear")]
    kind: String,
    /// What the kind needs to know, such as status=503 or location=http://127.0.0.1:9/
    #[arg(value_name = "NAME=VALUE", value_parser = pair)]
    with: Vec<(String, Value)>,
    /// Which calls: login, refresh, token (both), wallet, ping or any
    #[arg(long, default_value = "token")]
    on: String,
    /// How many calls
    #[arg(long, default_value = "1", conflicts_with = "until_cleared")]
    times: u32,
    /// Every call, until cleared
    #[arg(long)]
    until_cleared: bool,
    /// How long the call is on its way before it arrives
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    delay: String,
    /// Process the call first, also where the fault stands in for the server
    #[arg(long)]
    processed: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) async fn fault(args: FaultArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let answer = match &*args.kind {
        "list" => args.remote.call(Method::GET, "faults", None).await?,
        "clear" => args.remote.call(Method::DELETE, "faults", None).await?,
        kind => {
            let mut fault: Map<String, Value> = args.with.into_iter().collect();
            fault.insert("kind".to_owned(), kind.into());
            fault.insert("target".to_owned(), args.on.into());
            fault
                .insert("times".to_owned(), if args.until_cleared { Value::Null } else { args.times.into() });
            fault.insert("delay".to_owned(), args.delay.into());
            fault.insert("processed".to_owned(), args.processed.into());
            args.remote.call(Method::POST, "faults", Some(fault.into())).await?
        }
    };
    Ok(out.write_all(&answer)?)
}
