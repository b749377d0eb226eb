//! `check --online`: one login, out of the same budget as the daemon's.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use super::report::Report;
use crate::{
    budget::{CallBudget, Purpose, Turn},
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
    let turn = budget.take(Purpose::Schedule).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::CallLimit,
        cli::output::Look,
        clock::SystemClock,
        issuer::Answer,
        state::CallRecordFile,
        token::{AccessToken, Grant, RefreshToken},
    };

    /// An upstream that always answers the same.
    struct Always(Result<Grant, IssueError>);

    impl TokenIssuer for Always {
        fn fetch_token(&self, _: Duration) -> Answer<'_> {
            Box::pin(std::future::ready(self.0.clone()))
        }

        fn refresh_token<'a>(&'a self, _: &'a RefreshToken, _: Duration) -> Answer<'a> {
            panic!("a check has nothing to refresh")
        }
    }

    fn grant() -> Grant {
        Grant {
            access: AccessToken::parse("the-secret".into()).unwrap(),
            asked_at: SystemClock.now().boot,
            lifetime: Duration::from_secs(900),
            refresh: None,
        }
    }

    async fn logged_in(directory: &Path, answer: Result<Grant, IssueError>) -> (Exit, String) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let record = CallRecordFile::new(directory, "http://127.0.0.1:1");
        let budget = CallBudget::new(CallLimit::B2BINPAY, Arc::new(record), Arc::clone(&clock));
        let mut report = Report::default();
        let exit = login(Arc::new(Always(answer)), budget, &clock, Duration::from_secs(1), &mut report).await;
        (exit, report.render(Look::PLAIN))
    }

    #[tokio::test]
    async fn a_login_is_told_without_its_token() {
        let directory = tempfile::tempdir().unwrap();
        let (exit, text) = logged_in(directory.path(), Ok(grant())).await;
        assert_eq!(exit, Exit::Done, "{text}");
        assert!(text.contains("for 15m, is dropped") && text.contains("1 of 15 calls"), "{text}");
        assert!(!text.contains("the-secret"), "{text}");
    }

    #[tokio::test]
    async fn where_no_call_is_left_nothing_is_asked_and_the_time_is_told() {
        let directory = tempfile::tempdir().unwrap();
        // The first call on a new record is the only one for a while.
        logged_in(directory.path(), Ok(grant())).await;
        let (exit, text) = logged_in(directory.path(), Ok(grant())).await;
        assert_eq!(exit, Exit::Unavailable, "{text}");
        assert!(text.contains("not tried") && text.contains("(in "), "{text}");
        assert!(!text.contains("logged in"), "{text}");
    }

    #[tokio::test]
    async fn a_refusal_fails_and_says_what_to_look_at() {
        let directory = tempfile::tempdir().unwrap();
        let refused = IssueError::CredentialsRejected { detail: "400, 2006".to_owned() };
        let (exit, text) = logged_in(directory.path(), Err(refused)).await;
        assert_eq!(exit, Exit::Failed, "{text}");
        assert!(text.contains("[credentials]") && text.ends_with("1 error\n"), "{text}");
    }

    #[test]
    fn no_answer_is_another_exit_code_than_a_refusal() {
        let detail = String::new;
        for (error, exit) in [
            (IssueError::Forbidden { detail: detail() }, Exit::Failed),
            (IssueError::WrongSign, Exit::Failed),
            (IssueError::NotSent { detail: detail() }, Exit::Unavailable),
            (IssueError::AnswerLost { detail: detail() }, Exit::Unavailable),
            (IssueError::Throttled { retry_after: None }, Exit::Unavailable),
            (IssueError::Failed { status: 502, detail: detail() }, Exit::Unavailable),
        ] {
            assert_eq!(exit_of(&error), exit, "{error}");
        }
    }

    #[test]
    fn the_owner_of_the_state_directory_stays_who_it_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(become_owner(directory.path()), Ok(()));
        assert!(become_owner(&directory.path().join("missing")).is_err());
    }
}
