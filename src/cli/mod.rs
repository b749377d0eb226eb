//! The commands, a file each.
//!
//! Results go to stdout and everything else to stderr; what a program reads is plain, what a terminal shows may be set in
//! tables and colour. Exit codes are part of the contract: [`Exit`].

mod check;
mod demo;
mod layout;
mod lockdown;
mod output;
mod reload;
mod remote;
mod serve;
mod shell;
mod simulate;
mod status;
mod token;
mod verify;
mod watch;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{config, telemetry::flush_logs};

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It did what it was asked.
    Done,
    /// It failed; for `verify`: the sign is invalid.
    Failed,
    /// It was asked in the wrong words.
    Usage,
    /// `verify`: the callback is of the kind that is not signed.
    Unsigned,
    /// `verify`: the sign is right but too old.
    Stale,
    /// The broker can't be reached, or has no token (`EX_UNAVAILABLE`).
    Unavailable,
    /// The broker does not allow it (`EX_NOPERM`).
    NotAllowed,
    /// The configuration is wrong (`EX_CONFIG`).
    BadConfig,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unsigned => 3,
            Exit::Stale => 4,
            Exit::Unavailable => 69,
            Exit::NotAllowed => 77,
            Exit::BadConfig => 78,
        })
    }
}

/// Keeps one B2BINPAY credential set, its access token fresh, and hands it to the services that policy allows.
#[derive(Parser)]
#[command(name = "b2binpay-broker", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ConfigFile),
    /// Show the whole thing on this machine, with nothing to configure and nothing real
    Demo(demo::DemoArguments),
    Check(check::CheckArgs),
    Token(token::TokenArgs),
    Watch(watch::WatchArgs),
    Verify(verify::VerifyArgs),
    Status(status::StatusArgs),
    Reload(reload::ReloadArgs),
    Lockdown(lockdown::LockdownArgs),
    Unlock(lockdown::UnlockArgs),
    /// Run the simulator of B2BINPAY alone, for testing your own services
    Simulate(Box<b2binpay_simulator::cli::Args>),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Where the configuration is.
#[derive(clap::Args, Debug)]
struct ConfigFile {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> Exit {
    let exit = match arguments.command {
        Command::Serve(file) => serve::run(&file.config),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Token(args) => token::run(args),
        Command::Watch(args) => watch::run(&args),
        Command::Verify(args) => verify::run(args),
        Command::Status(args) => status::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Lockdown(args) => lockdown::lockdown(args),
        Command::Unlock(args) => lockdown::unlock(&args),
        Command::Simulate(args) => simulate::run(*args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    };
    flush_logs();
    exit
}

/// Tells a person what went wrong, on stderr.
fn complain(message: impl std::fmt::Display) {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(io::stderr(), "b2binpay-broker: {message}");
}
