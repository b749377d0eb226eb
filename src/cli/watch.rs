//! `watch`: each token as the broker gets it.
//!
//! A line tells which token it is, not the token: what stands on a screen is seen by those behind.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Exit, complain,
    layout::{self, json_line, moment},
    output::{Look, Reader, Tone, reader_left, show},
    remote::{Remote, block_on, refused},
    token::TokenJson,
};
use crate::{
    clock::{Clock, SystemClock},
    grpc::{
        client::{TokenStream, span},
        proto::{GetAccessTokenResponse, WatchAccessTokenResponse},
    },
    sign::printable,
};

const LINES: &str = "\
A line has the time, why the token is sent (CURRENT, ROTATED, REPLACED_AFTER_REJECTION, CREDENTIALS_CHANGED), its id and \
how long it is valid. It goes on until the broker stops or Ctrl-C, and doesn't connect again.

Exit codes: 0 ended by Ctrl-C or because nobody reads, 1 failed, 2 usage, 69 the broker can't be reached or ended it, \
77 not allowed";

/// Print a line for each token, as the broker gets it
#[derive(clap::Args, Debug)]
#[command(after_help = LINES)]
pub(super) struct WatchArgs {
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    /// With the token itself
    #[arg(long)]
    show_token: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(args: &WatchArgs) -> Exit {
    let look = Look::of_stdout();
    block_on(async {
        let client = args.remote.connect().await?;
        let stream = client.watch().await.map_err(|error| refused(&error))?;
        tokio::select! {
            ended = follow(args, stream, look) => ended,
            () = reader_left() => Ok(Exit::Done),
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
        }
    })
}

async fn follow(args: &WatchArgs, mut stream: TokenStream, look: Look) -> Result<Exit, Exit> {
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(refused(&error)),
            None => {
                complain("the broker ended the stream; start the watch again");
                return Err(Exit::Unavailable);
            }
        };
        let Some(token) = &message.token else { continue };
        let at = SystemClock.now().wall;
        let line = if args.json {
            json_line(&Line { at, reason: reason(&message), token: TokenJson::of(token, args.show_token) })
        } else {
            line(at, reason(&message), token, args.show_token, look)
        };
        if show(&line)? == Reader::Left {
            return Ok(Exit::Done);
        }
    }
}

/// A line of JSON. The names are a contract: docs/token-json.md.
#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    reason: &'static str,
    #[serde(flatten)]
    token: TokenJson<'a>,
}

fn reason(message: &WatchAccessTokenResponse) -> &'static str {
    let name = message.reason().as_str_name();
    name.strip_prefix("TOKEN_REASON_").unwrap_or(name)
}

fn line(
    at: Timestamp,
    reason: &'static str,
    token: &GetAccessTokenResponse,
    itself: bool,
    look: Look,
) -> String {
    let tone = if reason == CURRENT || reason == ROTATED { Tone::Good } else { Tone::Warning };
    let valid = span(token.valid_for).map_or_else(|| "unknown".to_owned(), layout::span);
    let itself = if itself { format!("  {}", printable(&token.access_token)) } else { String::new() };
    format!(
        "{}  {}  {}  valid for {valid}{itself}\n",
        moment(at),
        look.paint(tone, reason),
        printable(&token.token_id)
    )
}

const CURRENT: &str = "CURRENT";
const ROTATED: &str = "ROTATED";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::TokenReason;

    fn message(reason: TokenReason) -> WatchAccessTokenResponse {
        let token = GetAccessTokenResponse {
            access_token: "the-secret".to_owned(),
            token_id: "ba7816bf8f01cfea".to_owned(),
            ..GetAccessTokenResponse::default()
        };
        WatchAccessTokenResponse { token: Some(token), reason: reason.into() }
    }

    fn shown(itself: bool, look: Look) -> String {
        let message = message(TokenReason::Rotated);
        line(Timestamp::UNIX_EPOCH, reason(&message), &message.token.unwrap(), itself, look)
    }

    #[test]
    fn a_line_has_no_token_unless_asked() {
        let expected = "1970-01-01 00:00:00Z  ROTATED  ba7816bf8f01cfea  valid for unknown";
        assert_eq!(shown(false, Look::PLAIN), format!("{expected}\n"));
        assert_eq!(shown(true, Look::PLAIN), format!("{expected}  the-secret\n"));
    }

    #[test]
    fn json_has_no_token_unless_asked() {
        let message = message(TokenReason::Current);
        let json = |itself| {
            let token = TokenJson::of(message.token.as_ref().unwrap(), itself);
            json_line(&Line { at: Timestamp::UNIX_EPOCH, reason: reason(&message), token })
        };
        assert!(!json(false).contains("secret") && !json(false).contains("access_token"), "{}", json(false));
        assert!(json(true).contains(r#""access_token":"the-secret""#), "{}", json(true));
    }

    #[test]
    fn reasons_are_the_words_of_the_protocol() {
        assert_eq!(reason(&message(TokenReason::Current)), CURRENT);
        assert_eq!(reason(&message(TokenReason::Rotated)), ROTATED);
        let replaced = message(TokenReason::ReplacedAfterRejection);
        assert_eq!(reason(&replaced), "REPLACED_AFTER_REJECTION");
    }
}
