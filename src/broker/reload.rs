//! Reading everything again while the broker runs: what is asked for, and how it ends.
//!
//! It is all or nothing. Configuration, policy, certificates and credentials are read and checked first, new credentials are
//! proved by one login, and only then does all of it come into force, what takes rights away before what gives tokens. Who does that is [`Reload`]: it takes files, which the
//! domain doesn't know.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    caller::{CallerName, Peer},
    clock::BootInstant,
    keeper::NotReplaced,
    policy::Denial,
};

/// Who wants a reload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requester {
    /// A caller whom the policy allows it.
    Caller(CallerName, Arc<Peer>),
    /// Whoever may signal the process.
    Signal,
}

impl Requester {
    /// The caller, where it is one.
    pub fn caller(&self) -> Option<(&CallerName, &Peer)> {
        match self {
            Self::Caller(name, peer) => Some((name, peer)),
            Self::Signal => None,
        }
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(name, _) => write!(f, "caller {name}"),
            Self::Signal => f.write_str("SIGHUP"),
        }
    }
}

/// Everything was read and is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// What is other than before, for a person. Empty: nothing is.
    pub changes: Vec<String>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
    /// The generation of the credentials in force.
    pub generation: u64,
}

/// Nothing was changed. The message says why, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReloadRefused {
    /// The configuration, or a file that it names, can't be used. Has a line for each mistake.
    #[error("nothing was changed, since the configuration is wrong:\n{0}")]
    Configuration(String),
    /// These keys have other values than at the start.
    #[error(
        "nothing was changed, since a reload can't take over {}: restart the broker, or put the old values back",
        keys.join(" and ")
    )]
    RestartNeeded {
        /// Their names, such as `state.directory`.
        keys: Vec<&'static str>,
    },
    /// The upstream gave no token for the new credentials.
    #[error("nothing was changed, since the new credentials were not proved: {0}")]
    NotProved(#[from] NotReplaced),
    /// The files took too long to be read.
    #[error(
        "nothing was changed, since the configuration and the files that it names could not be read within {limit:?}: look \
         for a disk or a name service that hangs"
    )]
    ReadTooSlowly {
        /// As long.
        limit: Duration,
    },
    /// A reload before this one was given up while it read, and what it waits for hangs still.
    #[error(
        "nothing was changed, since files that an earlier reload began to read still can't be read: look for a disk or a name \
         service that hangs"
    )]
    StillReading,
    /// Another reload was under way until the deadline of this one.
    #[error("nothing was changed: another reload was under way for as long as this one could wait")]
    AnotherUnderWay,
    /// Whoever asked for it lost the right to it while it waited for its turn.
    #[error("nothing was changed: {0}")]
    NotAllowed(Denial),
    /// The broker ends.
    #[error("nothing was changed: the broker is stopping")]
    ShuttingDown,
}

impl ReloadRefused {
    /// A word for it, for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "CONFIGURATION_INVALID",
            Self::RestartNeeded { .. } => "RESTART_NEEDED",
            Self::NotProved(NotReplaced::NotProved(_)) => "CREDENTIALS_NOT_PROVED",
            Self::NotProved(NotReplaced::BudgetExhausted { .. }) => "BUDGET_EXHAUSTED",
            Self::NotProved(NotReplaced::Busy) | Self::AnotherUnderWay => "BUSY",
            Self::NotAllowed(denial) => denial.word(),
            Self::ReadTooSlowly { .. } | Self::StillReading => "FILES_UNREADABLE",
            Self::NotProved(NotReplaced::ShuttingDown) | Self::ShuttingDown => "SHUTTING_DOWN",
        }
    }
}

/// The end of a reload, when it comes.
pub type Reloading<'a> = Pin<Box<dyn Future<Output = Result<Reloaded, ReloadRefused>> + Send + 'a>>;

/// Whoever can read everything again.
pub trait Reload: Send + Sync + 'static {
    /// Does it, one at a time. Whoever comes while another is under way waits for its turn, and so does whoever proves new
    /// credentials for a call of the upstream's limit: until `deadline`. Once begun it is done to its end, whether somebody
    /// waits for it or not.
    fn reload(&self, requester: Requester, deadline: Option<BootInstant>) -> Reloading<'_>;
}
