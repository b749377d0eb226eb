//! Who is at the other end of a Unix socket, by the kernel's word.

mod cgroup;
mod unit;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{
    libc,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};

use crate::caller::Peer;

/// The process that connected to `socket`, as it was when it did; its unit as it is now.
pub(super) fn unix_peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = getsockopt(&socket, PeerCredentials)?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    // A process outside our PID namespace has no number here.
    let pid = Some(credentials.pid()).filter(|pid| *pid > 0);
    // Not knowing the unit is no reason to turn a peer away: it may be a caller as a user or a group.
    let unit = pid.and_then(|pid| {
        unit::peer_unit(socket, pid, (uid, gid))
            .inspect_err(|why| tracing::debug!(pid, uid, "the peer's unit isn't known: {why}"))
            .ok()
    });
    Ok(Peer::Unix { uid, gid, groups: groups(socket)?, pid, unit })
}

/// The peer's supplementary groups: `SO_PEERCRED` knows the primary one alone.
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // Most processes have fewer; the kernel says how much it needs otherwise.
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let size = groups.len() * size_of::<libc::gid_t>();
        let mut length = libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX);
        #[expect(unsafe_code, reason = "no crate wraps SO_PEERGROUPS")]
        // SAFETY: the pointer and the length describe the vector, which outlives the call; the kernel writes no more than
        // the length says.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        if outcome == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_socket_pair_has_ourselves_at_its_other_end() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let Peer::Unix { uid, gid, groups, pid, unit: _ } = unix_peer(socket.as_fd()).unwrap() else {
            panic!("a Unix socket has a process at its other end");
        };
        assert_eq!((uid, gid), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
        let mut expected: Vec<_> = nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        let mut groups = groups;
        expected.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, expected);
        assert_eq!(pid, i32::try_from(std::process::id()).ok());
    }
}
