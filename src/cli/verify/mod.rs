//! `verify`: whether B2BINPAY signed it.

mod text;

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Exit, complain,
    output::{Look, conclude, show},
    remote::{Remote, block_on, refused},
};
use crate::{
    config::parse_duration,
    grpc::{client::Signed, proto::Verdict},
    sign::{self, VerifyError},
};

/// The most that is read: more than any broker takes, so that it is the broker who says what is too much.
const LARGEST: usize = 1 << 20;

const RULINGS: &str = "\
The body of a callback must be given byte for byte as it was received. \
Use no field of a callback that is \"not signed\" without asking the API.

Examples:
  b2binpay-broker verify callback.json
  b2binpay-broker verify --explain < callback.json
  b2binpay-broker verify --token-response --time 2026-11-21T12:00:00Z --sign 5d41... refresh-token

Exit codes: 0 VALID, 1 INVALID or failed, 2 usage, 3 UNSIGNED, 4 STALE, 69 the broker can't be reached or has no key, \
77 not allowed";

/// Ask whether B2BINPAY signed a callback, a token answer or a message
#[derive(clap::Args, Debug)]
#[command(after_help = RULINGS)]
#[command(group(clap::ArgGroup::new("other_than_a_callback").args(["message", "token_response"])))]
pub(super) struct VerifyArgs {
    /// The callback's body [default: stdin, as with -]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How old a time that is signed may be; older ones, and those in the future, are STALE
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Tell how the message was built of which fields, and what its sign doesn't cover
    #[arg(long, conflicts_with_all = ["message", "token_response"])]
    explain: bool,
    /// FILE is a message, signed with --sign; needs the permission VerifySign:message
    #[arg(long, requires = "sign", conflicts_with_all = ["token_response", "max_age"])]
    message: bool,
    /// FILE holds the refresh token of a v2 answer of /token/, signed with --time and --sign; a final line break is
    /// left out
    #[arg(long, requires_all = ["sign", "time"])]
    token_response: bool,
    /// The sign: 64 hex digits
    #[arg(long, value_name = "HEX", requires = "other_than_a_callback")]
    sign: Option<String>,
    /// meta.time of a token answer, as it is written there
    #[arg(long, value_name = "TIME", requires = "token_response")]
    time: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(args: VerifyArgs) -> Exit {
    let content = match read(args.file.as_deref()) {
        Ok(content) => content,
        Err(message) => {
            complain(message);
            return Exit::Failed;
        }
    };
    let look = Look::of_stdout();
    if args.explain
        && let Some(ended) = explain(&content, look)
    {
        return ended;
    }
    let VerifyArgs { max_age, message, token_response, sign, time, remote, .. } = args;
    let signed = match (token_response, message) {
        (true, _) => {
            let Ok(refresh_token) = String::from_utf8(content) else {
                complain("this is no refresh token: it is not UTF-8 text");
                return Exit::Failed;
            };
            Signed::TokenResponse {
                time: time.unwrap_or_default(),
                refresh_token: without_line_break(refresh_token),
                sign: sign.unwrap_or_default(),
            }
        }
        (_, true) => Signed::Message { message: content, sign: sign.unwrap_or_default() },
        _ => Signed::Callback(content),
    };
    block_on(async {
        let client = remote.connect().await?;
        let found = client.verify(signed, max_age).await.map_err(|error| refused(&error))?;
        let finding = text::finding(&found, look);
        let result = if args.explain { text::beside_explanation(&finding, look) } else { finding };
        Ok(conclude(&result, exit_of(found.verdict())))
    })
}

/// Explains before anybody is asked: it needs no broker. `Some`: there is nothing to ask about.
fn explain(content: &[u8], look: Look) -> Option<Exit> {
    let (text, ended) = match sign::explain(content) {
        Ok(explanation) => (text::explanation(&explanation, look), None),
        Err(VerifyError::Malformed(violations)) => (text::unreadable(&violations, look), Some(Exit::Failed)),
        Err(error) => {
            complain(error);
            return Some(Exit::Failed);
        }
    };
    show(&text).err().or(ended)
}

const fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Valid => Exit::Done,
        Verdict::Invalid | Verdict::Unspecified => Exit::Failed,
        Verdict::Unsigned => Exit::Unsigned,
        Verdict::Stale => Exit::Stale,
    }
}

fn read(file: Option<&Path>) -> Result<Vec<u8>, String> {
    let named = file.filter(|file| *file != Path::new("-"));
    let source: Result<Box<dyn Read>, io::Error> = match named {
        Some(file) => File::open(file).map(|file| Box::new(file) as Box<dyn Read>),
        None => Ok(Box::new(io::stdin())),
    };
    if named.is_none() && io::stdin().is_terminal() {
        complain("reading from the terminal; Ctrl-D ends it");
    }
    let name = named.map_or_else(|| "stdin".to_owned(), |file| file.display().to_string());
    let mut content = Vec::new();
    source
        .and_then(|source| source.take(LARGEST as u64 + 1).read_to_end(&mut content))
        .map_err(|error| format!("{name}: can't be read: {error}"))?;
    if content.len() > LARGEST {
        return Err(format!("{name}: longer than {LARGEST} bytes: it is nothing that B2BINPAY signs"));
    }
    Ok(content)
}

fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_have_the_exit_codes_of_the_contract() {
        for (verdict, exit) in [
            (Verdict::Valid, Exit::Done),
            (Verdict::Invalid, Exit::Failed),
            (Verdict::Unsigned, Exit::Unsigned),
            (Verdict::Stale, Exit::Stale),
            (Verdict::Unspecified, Exit::Failed),
        ] {
            assert_eq!(exit_of(verdict), exit);
        }
    }

    #[test]
    fn one_line_break_is_left_out() {
        for (text, expected) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            assert_eq!(without_line_break(text.to_owned()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_is_read_as_it_is_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("body");
        std::fs::write(&file, b"\xff{}\r\n").unwrap();
        assert_eq!(read(Some(&file)).unwrap(), b"\xff{}\r\n");
        let endless = read(Some(Path::new("/dev/zero"))).unwrap_err();
        assert!(endless.contains("longer than"), "{endless}");
        let missing = read(Some(&directory.path().join("missing"))).unwrap_err();
        assert!(missing.contains("can't be read"), "{missing}");
    }
}
