//! What keeps the process's memory its own: it holds the keys to the till.

use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};

/// No core dump is written of this process, and no process of the same user can trace it or read its memory. Warns where
/// the system refuses, and goes on: a container may, and the service matters more.
pub fn protect_memory() {
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "the process's memory can't be closed to other processes of its user");
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "core dumps can't be switched off");
    }
}
