//! The system service that a peer runs in.
//!
//! Only a process's number leads to its control group, and a number is another process's once the first is gone. So the
//! process itself is held by a pidfd meanwhile, and must be alive after its control group was read: then the number was
//! its own all the time.
//!
//! The kernel gives that pidfd from 6.5 on. Before, all that can be had is one of whoever has the number now. That is
//! checked to be of the peer's user and group; what is left open there is that a process connects, ends, leaves the
//! connection to a child, and a service *of the same user* gets its number.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerPidfd},
};

use super::cgroup;
use crate::caller::SystemdUnit;

/// Why a peer's unit can't be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnitUnknown {
    #[error("the kernel gives no handle of the process: {0}")]
    NoHandle(io::Error),
    #[error("the process has ended")]
    Ended,
    #[error("its number is another process's by now")]
    Another,
    #[error(
        "it has another number under /proc, or none: the broker and /proc are in different PID namespaces"
    )]
    ElsewhereInProc,
    #[error("{0} under /proc can't be read: {1}")]
    Unreadable(&'static str, io::Error),
    #[error("{0}")]
    NoUnit(#[from] cgroup::NoUnit),
}

/// The service in which the process runs that connected to `socket`, as `pid`, user and group `ids`.
pub(super) fn peer_unit(
    socket: BorrowedFd<'_>,
    pid: i32,
    ids: (u32, u32),
) -> Result<SystemdUnit, UnitUnknown> {
    let proc = Path::new("/proc");
    let process = match getsockopt(&socket, PeerPidfd) {
        Ok(process) => {
            has_number(proc, process.as_fd(), pid)?;
            process
        }
        Err(Errno::ENOPROTOOPT) => whoever_has(proc, pid, ids)?,
        // What the kernel says of a process that is gone, depending on its version.
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => return Err(UnitUnknown::Ended),
        Err(error) => return Err(UnitUnknown::NoHandle(error.into())),
    };
    unit_of(proc, process.as_fd(), pid)
}

/// Makes sure that this process has this number where /proc was mounted, and not only for us: else another's control group
/// would be read. <https://man7.org/linux/man-pages/man5/proc_pid_fdinfo.5.html>: it is -1 once the process has ended.
fn has_number(proc: &Path, process: BorrowedFd<'_>, pid: i32) -> Result<(), UnitUnknown> {
    let info = fs::read_to_string(proc.join("self/fdinfo").join(process.as_raw_fd().to_string()))
        .map_err(|error| UnitUnknown::Unreadable("fdinfo", error))?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    match number {
        Some(number) if number == pid => Ok(()),
        Some(-1) => Err(UnitUnknown::Ended),
        Some(_) | None => Err(UnitUnknown::ElsewhereInProc),
    }
}

/// The unit of this process, whose number was `pid` while it lived.
fn unit_of(proc: &Path, process: BorrowedFd<'_>, pid: i32) -> Result<SystemdUnit, UnitUnknown> {
    let cgroup = read(proc, pid, "cgroup")?;
    // After reading: what was read was this process's if it is still there.
    if has_ended(process) {
        return Err(UnitUnknown::Ended);
    }
    Ok(cgroup::unit(&cgroup)?)
}

/// A handle of the process that has this number, if it has these ids too.
fn whoever_has(proc: &Path, pid: i32, ids: (u32, u32)) -> Result<OwnedFd, UnitUnknown> {
    let process = open(pid).map_err(UnitUnknown::NoHandle)?;
    let status = read(proc, pid, "status")?;
    let effective = |name: &str| {
        // `Uid:	real	effective	saved	file system`
        let ids = status.lines().find_map(|line| line.strip_prefix(name))?;
        ids.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    if (effective("Uid:"), effective("Gid:")) != (Some(ids.0), Some(ids.1)) {
        return Err(UnitUnknown::Another);
    }
    Ok(process)
}

fn read(proc: &Path, pid: i32, name: &'static str) -> Result<String, UnitUnknown> {
    fs::read_to_string(proc.join(pid.to_string()).join(name))
        .map_err(|error| UnitUnknown::Unreadable(name, error))
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "no crate here wraps pidfd_open")]
    // SAFETY: the call takes two numbers. What it gives, if it is not negative, is a new descriptor that nobody else owns.
    unsafe {
        let found = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        match i32::try_from(found) {
            Ok(descriptor) if descriptor >= 0 => Ok(OwnedFd::from_raw_fd(descriptor)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the process is gone, or lies as a zombie. Then its pidfd can be read, so to speak.
fn has_ended(process: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(process, PollFlags::POLLIN)];
    !matches!(poll(&mut asked, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        process::{Child, Command},
    };

    use super::*;

    const SERVICE: &str = "0::/system.slice/payouts.service\n";

    /// A folder that looks like /proc to us, with this process in it.
    fn proc_with(pid: i32, cgroup: &str, status: &str) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join(pid.to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cgroup"), cgroup).unwrap();
        fs::write(folder.join("status"), status).unwrap();
        proc
    }

    fn sleeper() -> (Child, i32) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    #[test]
    fn the_unit_of_a_process_is_told_while_it_lives_and_not_after() {
        let (mut child, pid) = sleeper();
        let proc = proc_with(pid, SERVICE, "");
        let process = open(pid).unwrap();
        assert_eq!(unit_of(proc.path(), process.as_fd(), pid).unwrap().as_str(), "payouts.service");
        child.kill().unwrap();
        // From the kill on it may be a zombie, whose number is still its own; the pidfd tells when.
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        for _ in 0..2 {
            // By now its number may be anybody's, and there may be a service of it.
            let told = unit_of(proc.path(), process.as_fd(), pid);
            assert!(matches!(told, Err(UnitUnknown::Ended)), "{told:?}");
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_has_another_number_under_proc_has_no_unit() {
        let (mut child, pid) = sleeper();
        let process = open(pid).unwrap();
        assert!(has_number(Path::new("/proc"), process.as_fd(), pid).is_ok());
        let other = has_number(Path::new("/proc"), process.as_fd(), pid + 1);
        assert!(matches!(other, Err(UnitUnknown::ElsewhereInProc)), "{other:?}");
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join("self/fdinfo");
        fs::create_dir_all(&folder).unwrap();
        // 0: the process is in a namespace that isn't below that of /proc.
        for (info, ended) in [("Pid:\t0\nNSpid:\t0\n", false), ("", false), ("Pid:\t-1\n", true)] {
            fs::write(folder.join(process.as_raw_fd().to_string()), info).unwrap();
            match has_number(proc.path(), process.as_fd(), pid) {
                Err(UnitUnknown::ElsewhereInProc) if !ended => {}
                Err(UnitUnknown::Ended) if ended => {}
                told => panic!("{info:?}: {told:?}"),
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = has_number(Path::new("/proc"), process.as_fd(), pid);
        assert!(matches!(gone, Err(UnitUnknown::Ended)), "{gone:?}");
    }

    #[test]
    fn where_the_kernel_holds_no_process_the_number_must_lead_to_one_of_the_same_user_and_group() {
        let (mut child, pid) = sleeper();
        let status = "Name:\tsleep\nUid:\t1\t1000\t3\t4\nGid:\t5\t100\t7\t8\n";
        let proc = proc_with(pid, SERVICE, status);
        assert!(whoever_has(proc.path(), pid, (1000, 100)).is_ok());
        for ids in [(1001, 100), (1000, 101), (1, 5)] {
            assert!(matches!(whoever_has(proc.path(), pid, ids), Err(UnitUnknown::Another)), "{ids:?}");
        }
        let ours = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        assert!(whoever_has(Path::new("/proc"), pid, ours).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(whoever_has(proc.path(), pid, (1000, 100)), Err(UnitUnknown::NoHandle(_))));
    }

    #[test]
    fn a_real_peer_has_the_unit_that_its_control_group_names() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let expected = cgroup::unit(&fs::read_to_string("/proc/self/cgroup").unwrap());
        match (peer_unit(socket.as_fd(), pid, ids), expected) {
            (Ok(unit), Ok(expected)) => assert_eq!(unit, expected),
            (Err(UnitUnknown::NoUnit(why)), Err(expected)) => assert_eq!(why, expected),
            (told, expected) => panic!("{told:?} instead of {expected:?}"),
        }
    }
}
