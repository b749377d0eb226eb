//! `lockdown` and `unlock`: stop the handing out of tokens at once, and let it begin again.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    Exit, complain,
    layout::{Cell, Table, moment, relative},
    output::{Look, Tone, conclude},
    remote::{Remote, block_on, refused},
};
use crate::{
    clock::{Clock, SystemClock},
    grpc::{
        client::time,
        proto::{LockStatus, LockdownResponse, UnlockResponse},
    },
    sign::printable,
};

const LOCKDOWN_EXIT_CODES: &str = "\
It acts when this returns, and lasts until `unlock`, across restarts. Signs are verified all the same. B2BINPAY can't take \
tokens back: until those in the list have ended, or their sessions were ended in B2BINPAY's own pages, their holders can use \
them.

Exit codes: 0 locked, also where that could not be written down yet, 1 failed, 2 usage, 69 the broker can't be reached, \
77 not allowed (Admin:Lockdown)";

/// Hand out no more tokens: to nobody, or to one caller
#[derive(clap::Args, Debug)]
#[command(after_help = LOCKDOWN_EXIT_CODES)]
pub(super) struct LockdownArgs {
    /// Lock out this caller alone
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Why, for those who are refused and those who come after you
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    remote: Remote,
}

const UNLOCK_EXIT_CODES: &str = "\
Who was locked out alone is let in alone: without --caller, what is lifted is the lock on everyone.

Exit codes: 0 unlocked, or it was not locked, 1 failed, 2 usage, 69 the broker can't be reached, 77 not allowed \
(Admin:Unlock)";

/// Hand out tokens again
#[derive(clap::Args, Debug)]
#[command(after_help = UNLOCK_EXIT_CODES)]
pub(super) struct UnlockArgs {
    /// Let this caller in again, which was locked out alone
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn lockdown(args: LockdownArgs) -> Exit {
    let look = Look::of_stdout();
    block_on(async {
        let client = args.remote.connect().await?;
        let done = client.lockdown(args.caller, args.reason).await.map_err(|error| refused(&error))?;
        if !done.persisted {
            complain(format_args!(
                "it acts, but it would not survive a restart yet: {}",
                printable(&done.problem)
            ));
        }
        Ok(conclude(&locked(&done, SystemClock.now().wall, look), Exit::Done))
    })
}

pub(super) fn unlock(args: &UnlockArgs) -> Exit {
    let look = Look::of_stdout();
    block_on(async {
        let client = args.remote.connect().await?;
        let done = client.unlock(args.caller.clone()).await.map_err(|error| refused(&error))?;
        if !done.persisted {
            complain(format_args!(
                "it acts, but after a restart the broker would begin locked: {}",
                printable(&done.problem)
            ));
        }
        let whom =
            args.caller.as_deref().map_or_else(|| "everyone".to_owned(), |name| format!("caller {name}"));
        Ok(conclude(&unlocked(&done, &whom, SystemClock.now().wall, look), Exit::Done))
    })
}

fn locked(done: &LockdownResponse, now: Timestamp, look: Look) -> String {
    let mut text = String::new();
    if let Some(lock) = &done.lock {
        let _ = writeln!(text, "{}", look.paint(Tone::Bad, &format!("LOCKED: {}", in_words(lock, now))));
    }
    let since = time(done.holders_known_since);
    let since = since.map(|since| format!(" of those given since {}", moment(since))).unwrap_or_default();
    if done.holders.is_empty() {
        let _ = writeln!(text, "Nobody of them holds a token that has not ended,{since}.");
        return text;
    }
    let _ = writeln!(text, "\nThese tokens have not ended,{since}:\n");
    let mut table = Table::default();
    let heading = |text: &str| Cell::toned(text, Tone::Strong);
    table.row([heading("CALLER"), heading("TOKEN"), heading("GIVEN"), heading("ENDS")]);
    for holder in &done.holders {
        let token = holder.token.clone().unwrap_or_default();
        let when =
            |at| time(at).map(|at| format!("{} ({})", relative(at, now), moment(at))).unwrap_or_default();
        table.row([
            printable(&holder.caller).into(),
            printable(&token.token_id).into(),
            when(token.given_at).into(),
            when(token.expires_at).into(),
        ]);
    }
    text.push_str(&table.render(2, look));
    text
}

fn unlocked(done: &UnlockResponse, whom: &str, now: Timestamp, look: Look) -> String {
    let was = if done.was_locked { "unlocked" } else { "was not locked" };
    let mut text = format!("{}\n", look.paint(Tone::Good, &format!("{} {was}", printable(whom))));
    for lock in &done.locks {
        let still = format!("still locked: {}", in_words(lock, now));
        let _ = writeln!(text, "{}", look.paint(Tone::Warning, &still));
    }
    text
}

/// Whom, since when, by whom and why.
fn in_words(lock: &LockStatus, now: Timestamp) -> String {
    let whom = lock.caller.as_ref().map_or_else(|| "everyone".to_owned(), |name| format!("caller {name}"));
    let since = time(lock.since).map(|since| format!(", since {} ({})", relative(since, now), moment(since)));
    let (by, reason) = (&lock.locked_by, &lock.reason);
    printable(&format!("{whom}{}, by {by}: {reason}", since.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::{GivenToken, TokenHolder};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    /// A time as it comes over the wire.
    macro_rules! wire {
        ($seconds:expr) => {{
            let mut lock = LockStatus::default();
            lock.since.get_or_insert_default().seconds = 1_795_000_000 + $seconds;
            lock.since
        }};
    }

    fn lock(caller: Option<&str>) -> LockStatus {
        LockStatus {
            caller: caller.map(str::to_owned),
            since: wire!(0),
            reason: "stolen laptop".into(),
            locked_by: "ops".into(),
        }
    }

    #[test]
    fn who_locks_reads_who_holds_what_until_when() {
        let token =
            GivenToken { token_id: "ba7816bf8f01cfea".into(), given_at: wire!(-60), expires_at: wire!(600) };
        let mut done = LockdownResponse {
            lock: Some(lock(None)),
            holders: vec![TokenHolder { caller: "payouts".into(), token: Some(token) }],
            holders_known_since: wire!(-3600),
            persisted: true,
            problem: String::new(),
        };
        let expected = "\
LOCKED: everyone, since now (2026-11-18 11:06:40Z), by ops: stolen laptop

These tokens have not ended, of those given since 2026-11-18 10:06:40Z:

  CALLER   TOKEN             GIVEN                          ENDS
  payouts  ba7816bf8f01cfea  1m ago (2026-11-18 11:05:40Z)  in 10m (2026-11-18 11:16:40Z)
";
        assert_eq!(locked(&done, at(0), Look::PLAIN), expected);
        done.holders.clear();
        let text = locked(&done, at(0), Look::PLAIN);
        assert!(text.ends_with(
            "Nobody of them holds a token that has not ended, of those given since 2026-11-18 10:06:40Z.\n"
        ), "{text}");
    }

    #[test]
    fn who_unlocks_reads_what_is_still_locked() {
        let done = UnlockResponse {
            was_locked: true,
            locks: vec![lock(Some("payouts"))],
            persisted: true,
            problem: String::new(),
        };
        let expected = "\
everyone unlocked
still locked: caller payouts, since now (2026-11-18 11:06:40Z), by ops: stolen laptop
";
        assert_eq!(unlocked(&done, "everyone", at(0), Look::PLAIN), expected);
    }
}
