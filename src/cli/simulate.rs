//! `simulate`: the simulator alone, as a command of this program.

use std::io;

use b2binpay_simulator::cli::{self, Args};
use tracing::Level;

use super::{Exit, complain, serve};
use crate::{config::LogFormat, telemetry::start_logging};

pub(super) fn run(arguments: Args) -> Exit {
    start_logging(LogFormat::Auto, Level::WARN);
    let ran = match serve::runtime() {
        Ok(runtime) => runtime.block_on(cli::run(arguments, &mut io::stdout())),
        Err(error) => Err(error.into()),
    };
    let Err(error) = ran else { return Exit::Done };
    complain(&error);
    match error.exit_code() {
        2 => Exit::Usage,
        69 => Exit::Unavailable,
        _ => Exit::Failed,
    }
}
