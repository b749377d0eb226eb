//! Errors as callers see them: a code, a reason for programs, a message for people, and when to try again.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    broker::{NotUnlocked, ReloadRefused},
    issuer::IssueError,
    keeper::{NotReplaced, Refusal, RefusalReason},
    lockdown::LockedOut,
    policy::Denial,
    sign::VerifyError,
};

/// `google.rpc.ErrorInfo.domain` of all our errors.
pub(super) const ERROR_DOMAIN: &str = "b2binpay-broker";

/// `google.rpc.ErrorInfo.reason`: what went wrong, for programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorReason {
    /// No rule of the policy names the peer.
    CallerUnknown,
    /// The caller's rule does not allow the method.
    MethodNotAllowed,
    /// The caller's rule does not let it in from its address.
    NetworkNotAllowed,
    /// The caller calls more often than its rule allows.
    CallerRateLimited,
    /// The caller has too many calls open.
    TooManyStreams,
    /// The callback can't be read.
    MalformedCallback,
    /// More validity is asked for than tokens have.
    ValidityTooLong,
    /// The request makes no sense.
    BadRequest,
    /// The upstream can't be reached or fails.
    UpstreamUnavailable,
    /// The upstream throttles this host.
    UpstreamThrottled,
    /// The upstream's limit leaves no call for this.
    BudgetExhausted,
    /// There is no first token yet.
    Starting,
    /// The broker stops.
    ShuttingDown,
    /// The upstream refuses the credentials.
    CredentialsRejected,
    /// The upstream refuses this host's address.
    UpstreamForbidden,
    /// An operator locked everyone or the caller out.
    LockedDown,
    /// The secret that v3 signs callbacks with is not configured.
    NoCallbackSecret,
    /// There is no such method.
    MethodUnknown,
    /// The request is larger than the broker takes.
    MessageTooLarge,
    /// The configuration that was to be loaded is wrong.
    ConfigurationInvalid,
    /// The configuration that was to be loaded needs a restart.
    RestartNeeded,
    /// Files take too long to be read.
    FilesUnreadable,
    /// The call's deadline leaves no time.
    DeadlineTooShort,
    /// A mistake of the broker's.
    Internal,
}

impl ErrorReason {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerUnknown => "CALLER_UNKNOWN",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::NetworkNotAllowed => "NETWORK_NOT_ALLOWED",
            Self::CallerRateLimited => "CALLER_RATE_LIMITED",
            Self::TooManyStreams => "TOO_MANY_STREAMS",
            Self::MalformedCallback => "MALFORMED_CALLBACK",
            Self::ValidityTooLong => "VALIDITY_TOO_LONG",
            Self::BadRequest => "BAD_REQUEST",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::UpstreamThrottled => "UPSTREAM_THROTTLED",
            Self::BudgetExhausted => "BUDGET_EXHAUSTED",
            Self::Starting => "STARTING",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::CredentialsRejected => "CREDENTIALS_REJECTED",
            Self::UpstreamForbidden => "UPSTREAM_FORBIDDEN",
            Self::LockedDown => "LOCKED_DOWN",
            Self::NoCallbackSecret => "NO_CALLBACK_SECRET",
            Self::MethodUnknown => "METHOD_UNKNOWN",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::ConfigurationInvalid => "CONFIGURATION_INVALID",
            Self::RestartNeeded => "RESTART_NEEDED",
            Self::FilesUnreadable => "FILES_UNREADABLE",
            Self::DeadlineTooShort => "DEADLINE_TOO_SHORT",
            Self::Internal => "INTERNAL",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::CallerUnknown => Code::Unauthenticated,
            Self::MethodNotAllowed | Self::NetworkNotAllowed => Code::PermissionDenied,
            Self::CallerRateLimited | Self::TooManyStreams => Code::ResourceExhausted,
            Self::MalformedCallback | Self::ValidityTooLong | Self::BadRequest => Code::InvalidArgument,
            Self::UpstreamUnavailable
            | Self::UpstreamThrottled
            | Self::BudgetExhausted
            | Self::FilesUnreadable
            | Self::Starting
            | Self::ShuttingDown => Code::Unavailable,
            Self::CredentialsRejected
            | Self::UpstreamForbidden
            | Self::LockedDown
            | Self::NoCallbackSecret
            | Self::ConfigurationInvalid
            | Self::RestartNeeded => Code::FailedPrecondition,
            Self::MethodUnknown => Code::Unimplemented,
            Self::MessageTooLarge => Code::OutOfRange,
            Self::DeadlineTooShort => Code::DeadlineExceeded,
            Self::Internal => Code::Internal,
        }
    }

    /// A status of this reason.
    pub(super) fn status(self, message: impl Into<String>) -> Status {
        self.status_with(message, ErrorDetails::new())
    }

    fn status_with(self, message: impl Into<String>, mut details: ErrorDetails) -> Status {
        details.set_error_info(self.as_str(), ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(self.code(), message, details)
    }

    /// A status of this reason with a code that is not its own.
    fn status_as(self, code: Code, message: &str) -> Status {
        let details = ErrorDetails::with_error_info(self.as_str(), ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(code, message, details)
    }

    /// The same, with when to try again.
    pub(super) fn status_until(self, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        if let Some(delay) = retry_after {
            details.set_retry_info(Some(delay));
        }
        self.status_with(message, details)
    }
}

/// The reason that an error of ours carries.
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN).map(|info| info.reason)
}

pub(super) fn refused(refusal: &Refusal) -> Status {
    let reason = match &refusal.reason {
        RefusalReason::Starting => ErrorReason::Starting,
        RefusalReason::Slow => ErrorReason::UpstreamUnavailable,
        RefusalReason::BudgetExhausted => ErrorReason::BudgetExhausted,
        RefusalReason::ValidityTooLong(_) => ErrorReason::ValidityTooLong,
        RefusalReason::DeadlineTooShort => ErrorReason::DeadlineTooShort,
        RefusalReason::LockedDown(out) => return locked_out(out),
        RefusalReason::ShuttingDown => ErrorReason::ShuttingDown,
        RefusalReason::Upstream(error) => failed(error),
    };
    reason.status_until(refusal.to_string(), refusal.retry_after)
}

const fn failed(error: &IssueError) -> ErrorReason {
    match error {
        IssueError::Throttled { .. } => ErrorReason::UpstreamThrottled,
        IssueError::CredentialsRejected { .. } => ErrorReason::CredentialsRejected,
        IssueError::Forbidden { .. } => ErrorReason::UpstreamForbidden,
        _ => ErrorReason::UpstreamUnavailable,
    }
}

/// The most of a message that is sent, in bytes. It travels as a header, percent-encoded, and peers take 8 to 16 KiB of
/// headers; who sends more is not understood at all.
const LONGEST_MESSAGE: usize = 2048;

/// The message as it is, or as many of its lines as fit, and how many more there are.
fn short(message: &str) -> String {
    if message.len() <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    let mut lines = message.lines();
    let mut kept = String::new();
    let mut left = message.lines().count();
    if left == 1 {
        return message.chars().take(LONGEST_MESSAGE / 2).chain(['…']).collect();
    }
    while let Some(line) = lines.next().filter(|line| kept.len() + line.len() < LONGEST_MESSAGE) {
        kept.extend([line, "\n"]);
        left -= 1;
    }
    format!("{kept}… and {left} more; run `b2binpay-broker check`")
}

pub(super) fn not_reloaded(refused: &ReloadRefused) -> Status {
    let (reason, retry_after) = match refused {
        ReloadRefused::NotAllowed(denial) => return denied(denial),
        ReloadRefused::Configuration(_) => (ErrorReason::ConfigurationInvalid, None),
        ReloadRefused::RestartNeeded { .. } => (ErrorReason::RestartNeeded, None),
        ReloadRefused::NotProved(why) => match why {
            NotReplaced::NotProved(error) => (failed(error), None),
            NotReplaced::BudgetExhausted { retry_after } => {
                (ErrorReason::BudgetExhausted, Some(*retry_after))
            }
            NotReplaced::Busy => (ErrorReason::UpstreamUnavailable, None),
            NotReplaced::ShuttingDown => (ErrorReason::ShuttingDown, None),
        },
        ReloadRefused::ReadTooSlowly { .. } | ReloadRefused::StillReading => {
            (ErrorReason::FilesUnreadable, None)
        }
        ReloadRefused::AnotherUnderWay => (ErrorReason::DeadlineTooShort, None),
        ReloadRefused::ShuttingDown => (ErrorReason::ShuttingDown, None),
    };
    reason.status_until(short(&refused.to_string()), retry_after)
}

pub(super) fn not_unlocked(refused: &NotUnlocked) -> Status {
    match refused {
        NotUnlocked::NoSuchCaller(error) => bad_field("caller", error.to_string()),
        NotUnlocked::LockedOut { .. } => ErrorReason::LockedDown.status(refused.to_string()),
    }
}

pub(super) fn locked_out(out: &LockedOut) -> Status {
    ErrorReason::LockedDown.status(out.to_string())
}

/// When there may be room for a message for which there was none: others take moments to arrive.
const ROOM_IN: Duration = Duration::from_secs(1);

pub(super) fn denied(denial: &Denial) -> Status {
    let reason = match denial {
        Denial::CallerUnknown { .. } | Denial::Ambiguous { .. } => ErrorReason::CallerUnknown,
        Denial::NetworkNotAllowed { .. } => ErrorReason::NetworkNotAllowed,
        Denial::MethodNotAllowed { .. } => ErrorReason::MethodNotAllowed,
        Denial::RateLimited { retry_after, .. } => {
            return ErrorReason::CallerRateLimited.status_until(denial.to_string(), Some(*retry_after));
        }
        Denial::TooManyMessages { .. } => {
            return ErrorReason::TooManyStreams.status_until(denial.to_string(), Some(ROOM_IN));
        }
        Denial::TooManyCalls { .. } => ErrorReason::TooManyStreams,
    };
    reason.status(denial.to_string())
}

pub(super) fn unverifiable(error: &VerifyError) -> Status {
    match error {
        VerifyError::Malformed(violations) => {
            let fields: Vec<_> = violations
                .iter()
                .map(|v| FieldViolation::new(v.field.as_str(), v.description.as_str()))
                .collect();
            ErrorReason::MalformedCallback
                .status_with(error.to_string(), ErrorDetails::with_bad_request(fields))
        }
        VerifyError::NoCallbackSecret => ErrorReason::NoCallbackSecret.status(error.to_string()),
        VerifyError::NotSignedByThisApi => ErrorReason::BadRequest.status(error.to_string()),
    }
}

/// A request whose field makes no sense.
pub(super) fn bad_field(field: &str, description: impl Into<String>) -> Status {
    let description = description.into();
    let message = format!("{field}: {description}");
    ErrorReason::BadRequest.status_with(message, ErrorDetails::with_bad_request_violation(field, description))
}

/// How tonic begins to tell that a request is not what it should be. It has one code, INTERNAL, for that and for faults
/// of the server.
const UNDECODABLE: [&str; 5] = [
    "failed to decode Protobuf message",
    "protocol error: received message with",
    "Error decompressing",
    "Unexpected EOF decoding stream",
    "Missing request message",
];

/// Says in an error's metadata which encodings of messages are taken, where one was used that isn't.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Gives an error that tonic or one of its services made the code and details that ours have. What it carries besides,
/// it keeps. `None`: it has details.
pub(super) fn completed(status: &Status) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let said = status.message();
    let mut completed = match status.code() {
        // gRPC itself gives these two a code that is not our reason's: the one for messages that are compressed in a way
        // that the server doesn't know, the other for the health of a service that nobody knows. Clients go by it.
        code @ Code::Unimplemented if status.metadata().contains_key(ACCEPT_ENCODING) => {
            ErrorReason::BadRequest.status_as(code, said)
        }
        code @ Code::NotFound => ErrorReason::BadRequest.status_as(code, said),
        Code::Unimplemented if said.is_empty() => ErrorReason::MethodUnknown
            .status("there is no such method; `grpc.reflection` tells which there are"),
        Code::Unimplemented => ErrorReason::MethodUnknown.status(said),
        Code::OutOfRange => ErrorReason::MessageTooLarge.status(format!("the request is too large: {said}")),
        Code::Internal if UNDECODABLE.iter().any(|beginning| said.starts_with(beginning)) => {
            ErrorReason::BadRequest.status(format!("the request can't be decoded: {said}"))
        }
        Code::InvalidArgument => ErrorReason::BadRequest.status(said),
        _ => ErrorReason::Internal.status(said),
    };
    *completed.metadata_mut() = status.metadata().clone();
    Some(completed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        caller::Peer,
        policy::{Permission, Selector},
    };

    #[test]
    fn a_denial_has_the_same_word_in_the_error_and_in_the_audit_log() {
        let caller = || "payouts".parse().unwrap();
        let peer = Peer::Unix { uid: 1, gid: 1, groups: Vec::new(), pid: None, unit: None };
        for denial in [
            Denial::CallerUnknown { peer: peer.clone() },
            Denial::Ambiguous { peer, callers: vec![(caller(), Selector::UnixUser(1))] },
            Denial::NetworkNotAllowed { caller: caller(), address: [127, 0, 0, 1].into() },
            Denial::MethodNotAllowed { caller: caller(), permission: Permission::Health },
            Denial::RateLimited {
                caller: caller(),
                rate: "1/s".parse().unwrap(),
                retry_after: Duration::from_secs(1),
            },
            Denial::TooManyCalls { caller: caller(), most: 1 },
            Denial::TooManyMessages { caller: caller(), most: Some(1) },
        ] {
            assert_eq!(reason_of(&denied(&denial)).as_deref(), Some(denial.word()));
        }
    }

    #[test]
    fn a_message_that_no_header_takes_is_cut_at_a_line_and_says_how_much_is_missing() {
        let all: Vec<_> = (1..=900).map(|line| format!("config.toml:{line}:1: nö such key")).collect();
        let cut = not_reloaded(&ReloadRefused::Configuration(all.join("\n")));
        let lines: Vec<_> = cut.message().lines().collect();
        let kept = lines.len() - 2;
        assert_eq!(lines[1..=kept], all[..kept]);
        assert_eq!(*lines.last().unwrap(), format!("… and {} more; run `b2binpay-broker check`", 900 - kept));
        assert!((1500..2200).contains(&cut.message().len()), "{}", cut.message().len());
        let whole = all[..20].join("\n");
        assert!(not_reloaded(&ReloadRefused::Configuration(whole.clone())).message().ends_with(&whole));
        assert!(short(&"ä".repeat(9000)).len() < 2200);
    }
}
