//! Having connections refused for a while.

use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::json;

use super::CliError;
use super::remote::Remote;

#[derive(Args)]
pub(super) struct OutageArgs {
    /// How long
    #[arg(value_name = "DURATION")]
    length: String,
    #[command(flatten)]
    remote: Remote,
}

pub(super) async fn outage(args: OutageArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let answer = args.remote.call(Method::POST, "outage", Some(json!({ "length": args.length }))).await?;
    Ok(out.write_all(&answer)?)
}
