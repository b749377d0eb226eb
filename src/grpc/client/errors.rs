//! Why a call gave nothing, for a person and for an exit code.

use std::{error::Error, fmt, time::Duration};

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{FieldViolation, StatusExt};

use super::super::errors::reason_of;
use crate::sign::printable;

/// What an error means for whoever waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The broker, or what it needs, is not there now.
    Unavailable,
    /// The caller may not do this.
    NotAllowed,
    /// Anything else: most often the request makes no sense.
    Failed,
}

/// A call that ended with an error. Its text is the broker's message, with the words of the contract behind it, and is
/// fit for a terminal whoever sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallError {
    /// The code's name, such as `UNAVAILABLE`.
    pub code: &'static str,
    /// The reason for programs, such as `BUDGET_EXHAUSTED`. `None` where it is not the broker that speaks.
    pub reason: Option<String>,
    /// What happened and what to do.
    pub message: String,
    /// When trying again can help.
    pub retry_after: Option<Duration>,
    /// What is wrong in the request, field by field.
    pub violations: Vec<(String, String)>,
    /// What it means.
    pub meaning: Meaning,
}

impl CallError {
    pub(super) fn of(status: &Status, timeout: Duration) -> Self {
        if came_too_late(status) {
            return Self::slow(timeout);
        }
        // Errors of the broker's come over the wire; those that have a source were made here.
        if status.source().is_some() {
            return Self::lost(status);
        }
        let details = status.get_error_details();
        let reason = reason_of(status);
        let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let said = match status.message() {
            "" => "the broker refused the call and did not say why",
            message => message,
        };
        Self {
            code: code_name(status.code()),
            reason: reason.map(|reason| printable(&reason)),
            message: printable(said),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            violations: fields.iter().map(violation).collect(),
            meaning: meaning(status.code()),
        }
    }

    /// The broker did not answer in time.
    pub(super) fn slow(timeout: Duration) -> Self {
        Self {
            code: code_name(Code::DeadlineExceeded),
            reason: None,
            message: format!(
                "the broker did not answer within {timeout:?}: it may be stopped or overloaded; look at its log, or give it \
                 longer with --timeout"
            ),
            retry_after: None,
            violations: Vec::new(),
            meaning: Meaning::Unavailable,
        }
    }

    /// The connection broke.
    fn lost(status: &Status) -> Self {
        Self {
            code: code_name(Code::Unavailable),
            reason: None,
            message: format!(
                "the connection to the broker broke: {}; look whether the broker still runs, and over the network \
                 whether it trusts --cert",
                printable(&innermost(status))
            ),
            retry_after: None,
            violations: Vec::new(),
            meaning: Meaning::Unavailable,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.code)?;
        if let Some(reason) = &self.reason {
            write!(f, ", {reason}")?;
        }
        f.write_str(")")?;
        if let Some(after) = self.retry_after {
            // Rounded up: a hair too early is in vain.
            write!(f, "; try again in {}s", after.as_millis().div_ceil(1000))?;
        }
        Ok(())
    }
}

impl Error for CallError {}

fn violation(violation: &FieldViolation) -> (String, String) {
    (printable(&violation.field), printable(&violation.description))
}

fn came_too_late(status: &Status) -> bool {
    chain(status).any(<dyn Error>::is::<TimeoutExpired>)
}

fn innermost(status: &Status) -> String {
    chain(status).last().map(ToString::to_string).unwrap_or_default()
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&error| error.source())
}

const fn meaning(code: Code) -> Meaning {
    match code {
        Code::Unavailable | Code::FailedPrecondition | Code::DeadlineExceeded => Meaning::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => Meaning::NotAllowed,
        _ => Meaning::Failed,
    }
}

/// The name that all languages' libraries know.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::ErrorReason;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn an_error_of_the_broker_s_is_told_whole() {
        let status = ErrorReason::BudgetExhausted
            .status_until("the limit leaves no call", Some(Duration::from_millis(4200)));
        let error = CallError::of(&status, TIMEOUT);
        assert_eq!(
            error.to_string(),
            "the limit leaves no call (UNAVAILABLE, BUDGET_EXHAUSTED); try again in 5s"
        );
        assert_eq!(error.meaning, Meaning::Unavailable);
    }

    #[test]
    fn codes_mean_what_exit_codes_say() {
        let meaning = |reason: ErrorReason| CallError::of(&reason.status("no"), TIMEOUT).meaning;
        for reason in [
            ErrorReason::UpstreamUnavailable,
            ErrorReason::CredentialsRejected,
            ErrorReason::ShuttingDown,
            ErrorReason::DeadlineTooShort,
        ] {
            assert_eq!(meaning(reason), Meaning::Unavailable, "{reason:?}");
        }
        for reason in [ErrorReason::CallerUnknown, ErrorReason::MethodNotAllowed] {
            assert_eq!(meaning(reason), Meaning::NotAllowed, "{reason:?}");
        }
        for reason in [ErrorReason::BadRequest, ErrorReason::ValidityTooLong, ErrorReason::Internal] {
            assert_eq!(meaning(reason), Meaning::Failed, "{reason:?}");
        }
    }

    #[test]
    fn fields_are_told_one_by_one_and_can_not_move_the_cursor() {
        let status = super::super::super::errors::bad_field("max_age\u{1b}[2J", "must be \u{7}positive");
        let error = CallError::of(&status, TIMEOUT);
        assert_eq!(error.violations, [(r"max_age\u{1b}[2J".to_owned(), r"must be \u{7}positive".to_owned())]);
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }

    #[test]
    fn what_broke_on_the_way_is_no_answer() {
        let broken = std::io::Error::other("connection reset by peer");
        let error = CallError::of(&Status::from_error(Box::new(broken)), TIMEOUT);
        assert_eq!((error.code, error.meaning), ("UNAVAILABLE", Meaning::Unavailable));
        assert!(error.message.contains("connection reset by peer"), "{error}");

        let late = CallError::of(&Status::from_error(Box::new(TimeoutExpired(()))), TIMEOUT);
        assert_eq!((late.code, late.meaning), ("DEADLINE_EXCEEDED", Meaning::Unavailable));
        assert!(late.message.contains("within 10s"), "{late}");
    }
}
