//! `serve`: the daemon.

use std::{io, path::Path, sync::Arc};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use super::{Exit, complain};
use crate::{
    app,
    clock::{Clock, SystemClock},
    config::{Config, Environment},
    hardening::protect_memory,
    telemetry::start_logging,
};

/// Threads that serve. The work is little: one fetches while another answers.
const WORKERS: usize = 2;

pub(super) fn run(file: &Path) -> Exit {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            complain(errors);
            return Exit::BadConfig;
        }
    };
    start_logging(config.log.format, config.log.level);
    protect_memory();
    let loaded = match config.read_credentials(&Environment::from_process(), clock.now().wall) {
        Ok(loaded) => loaded,
        Err(errors) => {
            complain(errors);
            return Exit::BadConfig;
        }
    };
    for warning in config.warnings.iter().chain(&loaded.warnings) {
        tracing::warn!(file = %file.display(), "{warning}");
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("can't start threads: {error}"));
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(async {
        let bound = match app::build(&config, loaded, &clock) {
            Ok(bound) => bound,
            Err(error) => {
                complain(error);
                return Exit::BadConfig;
            }
        };
        for socket in bound.sockets() {
            tracing::info!(
                socket = %socket.display(),
                upstream = %config.upstream.base_url,
                api = %config.upstream.api,
                version = env!("CARGO_PKG_VERSION"),
                "serving"
            );
        }
        match bound.run(told_to_stop()).await {
            Ok(()) => Exit::Done,
            Err(ended) => {
                tracing::error!("{ended}");
                Exit::Failed
            }
        }
    });
    // Not waiting for threads that the system holds up, in a name lookup or a write to a dead disk.
    runtime.shutdown_background();
    exit
}

/// The daemon's runtime.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()
}

/// Ends with SIGTERM or SIGINT.
pub(super) async fn told_to_stop() {
    let listen =
        |kind| signal(kind).inspect_err(|error| tracing::warn!(%error, "a signal can't be listened to"));
    match (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Then a signal has its default effect, which ends the process as well.
        _ => std::future::pending().await,
    }
}
