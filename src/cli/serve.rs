//! `serve`: the daemon.

use std::{io, path::Path, sync::Arc};

use nix::libc;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Exit, complain};
use crate::{
    app,
    broker::{Reload, Requester},
    clock::{Clock, SystemClock},
    config::{Config, Environment},
    hardening::protect_memory,
    service_manager::{FromEnvironment, HandedOver},
    telemetry::start_logging,
};

/// Threads that serve. The work is little: one fetches while another answers.
const WORKERS: usize = 2;

#[expect(unsafe_code, reason = "see HandedOver: what was open before this process belongs to it")]
pub(super) fn run(file: &Path) -> Exit {
    // SAFETY: nothing was opened yet that is still open, and this is the one place that takes them.
    let handed_over = match unsafe { HandedOver::take_from_environment() } {
        Ok(handed_over) => handed_over,
        Err(error) => {
            complain(format_args!("can't take over the sockets that LISTEN_FDS speaks of: {error}"));
            return Exit::Failed;
        }
    };
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
    let environment = Environment::from_process();
    let loaded = match config.read_credentials(&environment, clock.now().wall) {
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
        survive_full_files();
        // Before anything says that it serves: who reads that may stop it at once.
        let stop = told_to_stop();
        let hangups = listen_to(SignalKind::hangup());
        let (upstream, api) = (config.upstream.base_url.to_string(), config.upstream.api);
        let bound = match app::build(config, environment, &loaded, handed_over, &clock) {
            Ok(mut bound) => {
                bound.report_to(Arc::new(FromEnvironment));
                bound
            }
            Err(error) => {
                // Supervisors try again after the one and not after the other.
                let exit = if error.is_configuration() { Exit::BadConfig } else { Exit::Failed };
                complain(error);
                return exit;
            }
        };
        for socket in bound.sockets() {
            tracing::info!(
                socket,
                upstream,
                %api,
                version = env!("CARGO_PKG_VERSION"),
                "serving"
            );
        }
        // Read, and kept by those who need it.
        drop(loaded);
        let reloading = tokio::spawn(reload_at(hangups, bound.reload()));
        let ended = bound.run(stop).await;
        reloading.abort();
        match ended {
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

/// Has writes beyond a limit on files' sizes fail like those to a full disk, where they would end the process.
fn survive_full_files() {
    // Listening takes its effect from a signal, and for good.
    if let Err(error) = signal(SignalKind::from_raw(libc::SIGXFSZ)) {
        tracing::warn!(%error, "can't listen to SIGXFSZ");
    }
}

/// Reads everything again at each signal. Those that come while it is being read are one more.
async fn reload_at(mut hangups: Option<Signal>, reload: Arc<dyn Reload>) {
    loop {
        comes(&mut hangups).await;
        // How it ended is in the log.
        let _ = reload.reload(Requester::Signal, None).await;
    }
}

/// A signal that can't be listened to keeps its default effect: it ends the process, without a drain.
fn listen_to(kind: SignalKind) -> Option<Signal> {
    let failed = |error| tracing::warn!(%error, signal = kind.as_raw_value(), "can't listen to a signal");
    signal(kind).map_err(failed).ok()
}

/// Ends with SIGTERM or SIGINT. They are listened to from the call on, not from the first look at the future.
pub(super) fn told_to_stop() -> impl Future<Output = ()> {
    let [mut terminate, mut interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(listen_to);
    async move {
        tokio::select! {
            () = comes(&mut terminate) => {}
            () = comes(&mut interrupt) => {}
        }
    }
}

/// Never ends for a signal that can't be listened to.
async fn comes(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}
