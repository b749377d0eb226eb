//! `check --online`: one login, out of the same budget as the daemon's.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use super::report::Report;
use crate::{
    budget::{CallBudget, Turn},
    cli::{
        Exit,
        layout::{moment, relative, span},
    },
    clock::Clock,
    hardening::protect_memory,
    issuer::{IssueError, TokenIssuer},
};

/// Logs in once, if the budget allows, and drops the token.
pub(super) async fn login(
    issuer: Arc<dyn TokenIssuer>,
    budget: Arc<CallBudget>,
    clock: &Arc<dyn Clock>,
    timeout: Duration,
    report: &mut Report,
) -> Exit {
    report.section("Online");
    let turn = budget.take().await;
    if let Some(problem) = budget.usage().problem {
        report.warning(format!("the record of call times can't be kept: {problem}"));
    }
    if let Turn::NotBefore(at) = turn {
        let now = clock.now();
        let at = now.wall_at(at);
        report.error(format!(
            "not tried: the upstream's limit leaves no call before {} ({}); try again then",
            moment(at),
            relative(at, now.wall)
        ));
        return Exit::Unavailable;
    }
    let began = clock.now().boot;
    let answer = issuer.fetch_token(timeout).await;
    let took = span(clock.now().boot.saturating_since(began));
    let exit = match &answer {
        Ok(grant) => {
            report.ok(format!(
                "logged in, which took {took}; the token, for {}, is dropped",
                span(grant.lifetime)
            ));
            Exit::Done
        }
        Err(error) => {
            report.error(format!("no token after {took}: {error}{}", advice(error)));
            exit_of(error)
        }
    };
    let usage = budget.usage();
    let (limit, window) = (usage.limit.requests(), span(usage.limit.window()));
    report.note(format!(
        "{} of {limit} calls used in {window}, {} could be made at once",
        usage.used, usage.available
    ));
    exit
}

/// The record of call times belongs to whoever makes it, and must be the daemon's: becomes the user who owns the state
/// directory, where that is another.
pub(super) fn become_owner(state_directory: &Path) -> Result<(), String> {
    let (user, group) = fs::metadata(state_directory)
        .map(|found| (Uid::from_raw(found.uid()), Gid::from_raw(found.gid())))
        .map_err(|error| format!("{}: can't be looked at: {error}", state_directory.display()))?;
    if user == geteuid() {
        return Ok(());
    }
    let changed = if geteuid().is_root() {
        setgroups(&[group])
            .and_then(|()| setresgid(group, group, group))
            .and_then(|()| setresuid(user, user, user))
            .map_err(io::Error::from)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    };
    // Memory is opened again by a change of user.
    protect_memory();
    changed.map_err(|error| {
        format!(
            "the state directory belongs to uid {user}, and its record of call times must, too: run this check as that \
             user or as root ({error})"
        )
    })
}

const fn advice(error: &IssueError) -> &'static str {
    match error {
        IssueError::CredentialsRejected { .. } => {
            ": look at the files of [credentials], and whether they are for this upstream.environment"
        }
        IssueError::Forbidden { .. } => ": add this host's public address to the account's list",
        _ => "",
    }
}

/// A refusal is a failure; where the upstream gave no answer to the question, it is unavailable.
const fn exit_of(error: &IssueError) -> Exit {
    match error {
        IssueError::CredentialsRejected { .. }
        | IssueError::RefreshTokenRejected { .. }
        | IssueError::Forbidden { .. }
        | IssueError::WrongSign => Exit::Failed,
        IssueError::NotSent { .. }
        | IssueError::AnswerLost { .. }
        | IssueError::Throttled { .. }
        | IssueError::Failed { .. }
        | IssueError::Unusable { .. } => Exit::Unavailable,
    }
}
