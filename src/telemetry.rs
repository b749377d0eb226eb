//! What the process writes of what it does: to stderr, as text for people or JSON for collectors.
//!
//! Logging waits for nobody: lines that stderr doesn't take in time are lost, and counted.

mod lines;

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
    time::Duration,
};

pub use lines::{Batch, Lines};
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Whose lines are written at the configured level. Libraries get a word in only for warnings, at whatever level ours are:
/// their debug lines hold headers and frames, and so tokens.
const OURS: [&str; 2] = ["b2binpay_broker", "b2binpay_simulator"];

/// How long the end of the process waits for who reads its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines on their way. One for the process, as its subscriber is.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Writes logs from now on. Does nothing if something does already. Who calls it calls [`flush_logs`] before the process
/// ends.
pub fn start_logging(format: LogFormat, level: Level) {
    let lines = Lines::default();
    // Without its thread nobody would ever write them; and without threads the process ends soon, and says why.
    if LINES.set(lines.clone()).is_err() || lines.write_to(io::stderr()).is_err() {
        return;
    }
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What came before it may be what explains it.
        flush_logs();
        tell(panic);
    }));
    let others = LevelFilter::WARN.min(LevelFilter::from_level(level));
    let filter = Targets::new().with_default(others).with_targets(OURS.map(|target| (target, level)));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(lines).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let _ = if json {
        registry
            .with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false))
            .try_init()
    } else {
        registry.with(lines.with_target(false)).try_init()
    };
}

/// Has a line of another kind written where log lines go, whatever their level. `false`: there was no room for it. Where
/// nothing is logged, that is what becomes of it.
pub fn say(line: Vec<u8>) -> bool {
    LINES.get().is_none_or(|lines| lines.push(line))
}

/// Waits until what was logged is written; not for long, where nobody reads.
pub fn flush_logs() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_LINES);
    }
}
