//! The command line, for this crate's own program and for any other that mounts it as a subcommand.

#![expect(
    clippy::doc_markdown,
    reason = "doc comments on arguments are help texts, which terminals show as they are"
)]

mod callback;
mod calls;
mod fault;
mod outage;
mod remote;
mod revoke;
mod serve;
mod settings;

use std::io::{self, Write};

use clap::Subcommand;
use thiserror::Error;

use crate::simulator::StartError;

/// Where the simulator listens, and where the other commands look for it, unless told otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8462";

const FAKE_ONLY: &str = "Every credential given here is a fake one for the simulator to accept. Flags can be read by \
                         every user of the machine: never put a real one.";

/// Run a simulator of B2BINPAY's authentication API, or talk to one that runs.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = FAKE_ONLY)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run a simulator until Ctrl-C (what happens without a command, too)
    Serve(serve::ServeArgs),
    /// Make calls of a running simulator go wrong
    Fault(fault::FaultArgs),
    /// Let a running simulator make a callback and post it
    Callback(callback::CallbackArgs),
    /// Show the calls that a running simulator has seen
    Calls(calls::CallsArgs),
    /// Show or change the settings of a running simulator
    Settings(settings::SettingsArgs),
    /// Make the tokens of a running simulator dead before their time
    Revoke(revoke::RevokeArgs),
    /// Let a running simulator refuse connections for a while
    Outage(outage::OutageArgs),
}

/// Why a command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CliError {
    /// The simulator did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The command contradicts itself, or has a value that means nothing.
    #[error("{0}")]
    Usage(String),
    /// No simulator answers.
    #[error("no simulator answers at {url} ({reason}); start one, or say where it is with --simulator")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The simulator didn't do it.
    #[error("the simulator refused: {0}")]
    Refused(String),
    /// A callback was sent, and the service did not take it.
    #[error("the service did not answer 200 to the callback")]
    NotDelivered,
    /// The result can't be written, or a signal can't be waited for.
    #[error("the system failed")]
    Io(#[from] io::Error),
}

impl CliError {
    /// The exit code to end with: 2 for a wrong command, 69 when no simulator answers, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 69,
            Self::Start(_) | Self::Refused(_) | Self::NotDelivered | Self::Io(_) => 1,
        }
    }
}

/// Carries out a command. Results go to `out`; a simulator runs until Ctrl-C or SIGTERM. Needs a tokio runtime with
/// time and I/O.
pub async fn run(args: Args, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match args.command.unwrap_or(Command::Serve(args.serve)) {
        Command::Serve(args) => serve::serve(args, out).await,
        Command::Fault(args) => fault::fault(args, out).await,
        Command::Callback(args) => callback::callback(args, out).await,
        Command::Calls(args) => calls::calls(args, out).await,
        Command::Settings(args) => settings::settings(args, out).await,
        Command::Revoke(args) => revoke::revoke(args, out).await,
        Command::Outage(args) => outage::outage(args, out).await,
    }
}
