//! The doors: sockets, and the loop that accepts.
//!
//! tonic's own loop waits for ever on one silent peer when it stops, spins when file descriptors run out, and bounds
//! neither connections nor first bytes; so this one is ours. It promises that no connection can keep the others from
//! being served, and that [`Listener::serve`] returns as soon as it is told
//! to, whoever is silent.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UnixListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Service, connection::connection};
use crate::config::Limits;

/// How long to pause when no connection can be accepted, for want of file descriptors above all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket can't be opened. Says which, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CannotListen {
    /// Somebody else does.
    #[error("{}: another process listens here already; stop it, or choose another path in [[listen]]", .0.display())]
    InUse(PathBuf),
    /// Something stands in the way that must not be deleted.
    #[error("{}: there is something that is no socket; remove it, or choose another path in [[listen]]", .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("{}: can't listen: {error}; the directory must exist and belong to the broker's user", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A Unix socket that accepts connections.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode, so as to remove no other's socket.
    identity: (u64, u64),
}

impl Listener {
    /// Opens the socket, with this file mode. A socket that a killed process left behind is replaced.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, CannotListen> {
        let failed = |error| CannotListen::Failed { path: path.to_owned(), error };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(CannotListen::NotASocket(path.to_owned()));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(CannotListen::InUse(path.to_owned()));
            }
            _ => {}
        }
        // Made aside and moved into place, so that nobody finds it with another mode, or not at all.
        let aside = aside(path);
        let _ = std::fs::remove_file(&aside);
        let open = || {
            let socket = UnixListener::bind(&aside)?;
            std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(mode))?;
            std::fs::rename(&aside, path)?;
            let found = std::fs::symlink_metadata(path)?;
            Ok(Self { socket, path: path.to_owned(), identity: (found.dev(), found.ino()) })
        };
        open().map_err(|error| {
            let _ = std::fs::remove_file(&aside);
            failed(error)
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `drain` is cancelled; then lets the calls under way finish, until `abort` is cancelled. Returns when the
    /// last connection is closed.
    pub async fn serve(
        self,
        service: Service,
        limits: Limits,
        connections: Arc<Semaphore>,
        drain: CancellationToken,
        abort: CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        let mut refusing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !std::mem::replace(&mut refusing, true) {
                        tracing::error!(%error, socket = %self.path.display(), "can't accept connections");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
                if !std::mem::replace(&mut refusing, true) {
                    tracing::warn!(
                        most = limits.max_connections,
                        "all connections are taken: new ones are closed at once; raise [limits] max_connections, or \
                         look for a caller that opens one for each call"
                    );
                }
                continue;
            };
            if std::mem::take(&mut refusing) {
                tracing::info!(socket = %self.path.display(), "accepting connections again");
            }
            let (service, limits, drain, abort) =
                (service.clone(), limits.clone(), drain.clone(), abort.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = abort.cancelled() => {}
                    () = connection(stream, service, limits, drain) => {}
                }
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A successor may have put its own in place.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
