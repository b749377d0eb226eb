//! `b2binpay-simulator`: the simulator as a program of its own.

use std::process::ExitCode;

use b2binpay_simulator::cli;
use clap::Parser;

/// A simulator of B2BINPAY's authentication API and callbacks, with faults on demand
#[derive(Parser)]
#[command(name = "b2binpay-simulator", version)]
struct Program {
    #[command(flatten)]
    args: cli::Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Program { args } = Program::parse();
    match cli::run(args, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints an error with all its causes.
#[expect(clippy::print_stderr, reason = "the one place where a failed command says why")]
fn complain(error: &dyn std::error::Error) {
    eprint!("b2binpay-simulator: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
}
