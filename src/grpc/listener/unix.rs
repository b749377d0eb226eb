//! The door on a Unix socket: the kernel tells who comes.

use std::{
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use tokio::net::{UnixListener, UnixStream};

use super::{Arrival, NoArrival, Socket};
use crate::{
    audit::AuditLog,
    grpc::{connection::Wire, peer::unix_peer},
};

/// A Unix socket that accepts connections.
pub(super) struct UnixDoor {
    /// What is removed when the door closes, and before it does. `None` for the socket of somebody else, at whose path
    /// callers go on queueing.
    #[expect(dead_code, reason = "it is there to be dropped")]
    own: Option<OwnSocket>,
    socket: UnixListener,
    place: String,
}

/// A socket that this process made.
struct OwnSocket {
    path: PathBuf,
    /// Device and inode, so as to remove no other's socket.
    identity: (u64, u64),
}

impl UnixDoor {
    pub(super) fn new(socket: UnixListener, path: PathBuf, identity: (u64, u64)) -> Self {
        Self { socket, place: path.display().to_string(), own: Some(OwnSocket { path, identity }) }
    }

    /// The door on a socket that somebody else made and keeps.
    pub(super) fn on_inherited(socket: UnixListener, place: String) -> Self {
        Self { socket, place, own: None }
    }
}

impl Socket for UnixDoor {
    type Stream = UnixStream;

    async fn arrival(&mut self, _: &AuditLog) -> Result<Arrival<UnixStream>, NoArrival> {
        let (stream, _) = self.socket.accept().await.map_err(NoArrival::of_accept)?;
        let peer = unix_peer(stream.as_fd()).map_err(NoArrival::Nobody)?;
        // What the kernel said of a process holds for as long as its connection.
        Ok(Arrival { stream, peer, trust: None })
    }

    fn place(&self) -> &str {
        &self.place
    }
}

/// What is written lies in the peer's own queue at once.
impl Wire for UnixStream {
    fn holds_bytes(&self) -> bool {
        false
    }

    fn forget_bytes(&self) {}
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        // A successor may have put its own in place.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
