//! Making tokens dead before their time.

use std::io::Write;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::json;

use super::CliError;
use super::remote::Remote;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Access tokens: /wallet/ answers 401
    Access,
    /// Refresh tokens, as if a thief had used them: /token/refresh/ answers 401
    Refresh,
}

#[derive(Args)]
pub(super) struct RevokeArgs {
    /// Which tokens
    which: Which,
    #[command(flatten)]
    remote: Remote,
}

pub(super) async fn revoke(args: RevokeArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let which = json!({ "access_tokens": args.which == Which::Access, "refresh_tokens": args.which == Which::Refresh });
    let answer = args.remote.call(Method::POST, "revoke", Some(which)).await?;
    Ok(out.write_all(&answer)?)
}
