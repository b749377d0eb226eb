//! `token`: the access token, for a shell.

use std::time::Duration;

use serde::Serialize;

use super::{
    Exit,
    output::conclude,
    remote::{Remote, block_on, refused},
};
use crate::{
    config::parse_duration,
    grpc::{
        client::{TokenWish, span, time},
        proto::GetAccessTokenResponse,
    },
};

const EXAMPLES: &str = "\
Examples:
  b2binpay-broker token --header | curl -H @- https://v3.api.b2binpay.com/wallet/
  TOKEN=$(b2binpay-broker token --min-validity 2m)

Never put the token in a command's arguments: every user of the host can read those.

Exit codes: 0 done, 1 failed, 2 usage, 69 the broker can't be reached or has no token, 77 not allowed";

/// Print the access token
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokenArgs {
    /// How long the token must still be valid [default: the broker's floor]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    min_validity: Option<Duration>,
    /// The id of a token that the upstream answered 401 to; waits for another if it is still the current one
    #[arg(long, value_name = "TOKEN-ID")]
    rejected: Option<String>,
    /// Print everything about it, as JSON
    #[arg(long, conflicts_with = "header")]
    json: bool,
    /// Print it as a header, for curl -H @-
    #[arg(long)]
    header: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(args: TokenArgs) -> Exit {
    block_on(async {
        let client = args.remote.connect().await?;
        let wish = TokenWish { min_validity: args.min_validity, rejected: args.rejected };
        let token = client.token(wish).await.map_err(|error| refused(&error))?;
        let result = if args.json {
            TokenJson::of(&token, true).line()
        } else if args.header {
            format!("Authorization: {} {}\n", token.token_type, token.access_token)
        } else {
            format!("{}\n", token.access_token)
        };
        Ok(conclude(&result, Exit::Done))
    })
}

/// A token as JSON. The names are a contract: docs/token-json.md.
#[derive(Serialize)]
pub(super) struct TokenJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    token_type: &'a str,
    token_id: &'a str,
    expires_at: Option<jiff::Timestamp>,
    valid_for_seconds: Option<f64>,
    base_url: &'a str,
    api_version: &'a str,
}

impl<'a> TokenJson<'a> {
    /// With the token itself or without.
    pub(super) fn of(token: &'a GetAccessTokenResponse, itself: bool) -> Self {
        Self {
            access_token: itself.then_some(token.access_token.as_str()),
            token_type: &token.token_type,
            token_id: &token.token_id,
            expires_at: time(token.expires_at),
            valid_for_seconds: span(token.valid_for).map(|span| span.as_secs_f64()),
            base_url: &token.base_url,
            api_version: &token.api_version,
        }
    }

    fn line(&self) -> String {
        super::layout::json_line(self)
    }
}
