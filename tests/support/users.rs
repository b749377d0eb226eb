//! Callers that are somebody else.

use std::{io, path::Path};

use nix::libc;
use tokio::net::UnixStream;

/// Whether tests may pass for other users. Says why not where they may not.
pub fn may_be_others() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can pass for another user");
    }
    root
}

/// A connection to `socket` that the kernel ascribes to `uid`.
///
/// What `SO_PEERCRED` tells is the connecting thread's user at that moment, and on Linux a thread can have one of its own.
pub async fn connect_as(socket: &Path, uid: u32) -> io::Result<UnixStream> {
    let socket = socket.to_owned();
    let (done, connected) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(become_user(uid).and_then(|()| std::os::unix::net::UnixStream::connect(socket)));
    });
    let stream = connected.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Makes this thread, and no other of the process, act as `uid` from now on.
fn become_user(uid: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the library's setresuid changes all threads, the system call one")]
    // SAFETY: the call takes numbers alone and touches no memory of ours.
    let outcome = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
