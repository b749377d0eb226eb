//! Showing and changing the settings of a running simulator.

use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::{Map, Value};

use super::CliError;
use super::remote::{Remote, pair};

#[derive(Args)]
pub(super) struct SettingsArgs {
    /// What to change, such as access_lifetime=60s or limit_calls=5; nothing shows them all
    #[arg(value_name = "NAME=VALUE", value_parser = pair)]
    changes: Vec<(String, Value)>,
    #[command(flatten)]
    remote: Remote,
}

pub(super) async fn settings(args: SettingsArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let answer = if args.changes.is_empty() {
        args.remote.call(Method::GET, "settings", None).await?
    } else {
        let patch: Map<_, _> = args.changes.into_iter().collect();
        args.remote.call(Method::PATCH, "settings", Some(patch.into())).await?
    };
    Ok(out.write_all(&answer)?)
}
