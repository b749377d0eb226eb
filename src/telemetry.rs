//! What the process writes of what it does: to stderr, as text for people or JSON for collectors.

use std::io::{self, IsTerminal};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Whose lines are written at the configured level. Libraries get a word in only for warnings, at whatever level ours are:
/// their debug lines hold headers and frames, and so tokens.
const OURS: [&str; 2] = ["b2binpay_broker", "b2binpay_simulator"];

/// Writes logs from now on. Does nothing if something does already.
pub fn start_logging(format: LogFormat, level: Level) {
    let others = LevelFilter::WARN.min(LevelFilter::from_level(level));
    let filter = Targets::new().with_default(others).with_targets(OURS.map(|target| (target, level)));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let _ = if json {
        registry
            .with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false))
            .try_init()
    } else {
        registry.with(lines.with_target(false)).try_init()
    };
}
