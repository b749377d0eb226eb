//! `status`: how the broker is.

mod report;
mod text;

use std::time::Duration;

use report::Report;

use super::{
    Exit,
    layout::json_line,
    output::{Look, Reader, conclude, show},
    remote::{Remote, block_on, refused},
};
use crate::{
    clock::{Clock, SystemClock},
    grpc::client::Client,
};

/// How long a status stays on the screen.
const REDRAW: Duration = Duration::from_secs(1);

/// Puts the cursor at the top; what stood there is overwritten line by line, which does not flicker.
const HOME: &str = "\u{1b}[H";
const REST_OF_LINE: &str = "\u{1b}[K";
const REST_OF_SCREEN: &str = "\u{1b}[J";

const EXIT_CODES: &str = "\
The exit code says whether the broker answered, not how it is; for that, add --ready, or look at `ready` and `state` of --json.

Exit codes: 0 done, 1 failed, 2 usage, 69 the broker can't be reached (with --ready: or has no token), 77 not allowed \
(Admin:GetStatus)";

/// Show how the broker is
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct StatusArgs {
    /// As JSON, an object on a line
    #[arg(long)]
    json: bool,
    /// Again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Exit with 69 where no token can be handed out: for a container's health check
    #[arg(long, conflicts_with = "watch")]
    ready: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(args: &StatusArgs) -> Exit {
    let look = Look::of_stdout();
    block_on(async {
        let client = args.remote.connect().await?;
        if args.watch {
            tokio::select! {
                ended = watch(args, client, look) => ended,
                _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
            }
        } else {
            let (ready, text) = status(args, &client, look).await?;
            Ok(conclude(&text, if args.ready && !ready { Exit::Unavailable } else { Exit::Done }))
        }
    })
}

/// Whether tokens can be handed out, and what to show.
async fn status(args: &StatusArgs, client: &Client, look: Look) -> Result<(bool, String), Exit> {
    let report = Report::from(client.status().await.map_err(|error| refused(&error))?);
    let text = if args.json { json_line(&report) } else { text::text(&report, SystemClock.now().wall, look) };
    Ok((report.ready, text))
}

async fn watch(args: &StatusArgs, client: Client, look: Look) -> Result<Exit, Exit> {
    let redraws = look.terminal && !args.json;
    let mut first = true;
    loop {
        let (_, status) = status(args, &client, look).await?;
        let shown = match (redraws, first) {
            (true, first) => screen(&status, first),
            (false, true) => status,
            (false, false) if args.json => status,
            (false, false) => format!("\n{status}"),
        };
        first = false;
        if show(&shown)? == Reader::Left {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(REDRAW).await;
    }
}

fn screen(status: &str, first: bool) -> String {
    let mut screen = HOME.to_owned();
    if first {
        screen.push_str(REST_OF_SCREEN);
    }
    for line in status.lines() {
        screen.extend([line, REST_OF_LINE, "\n"]);
    }
    screen.push_str(REST_OF_SCREEN);
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrawn_screen_leaves_nothing_of_the_one_before() {
        assert_eq!(screen("a\nb\n", false), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(screen("a\n", true), "\u{1b}[H\u{1b}[Ja\u{1b}[K\n\u{1b}[J");
    }
}
