//! Opening a socket at a path: over what a killed process left behind, and over nothing else.

use std::{
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use tokio::net::{UnixListener, UnixSocket};

use super::unix::UnixDoor;

/// How many connections wait to be accepted. The kernel takes the smaller of this and its own limit.
const BACKLOG: u32 = 1024;

/// The longest path of a socket: the kernel's field has 108 bytes, the last of which is NUL.
const LONGEST_PATH: usize = 107;

/// A socket can't be opened. Says which, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CannotListen {
    /// Somebody else does.
    #[error("{}: another process listens here already; stop it, or choose another path in [[listen]]", .0.display())]
    InUse(PathBuf),
    /// Something stands in the way that must not be deleted.
    #[error("{}: there is something that is no socket; remove it, or choose another path in [[listen]]", .0.display())]
    NotASocket(PathBuf),
    /// Somebody might listen there.
    #[error(
        "{}: there is a socket, and it can't be told whether another process listens on it: {error}; remove it if none \
         does, or choose another path in [[listen]]",
        path.display()
    )]
    Unclear {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A TCP port.
    #[error(
        "{address}: can't listen: {error}; another process may listen there, or the address is none of this host's"
    )]
    Port {
        /// The port.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The service manager handed over something else than the configuration says.
    #[error("listen.systemd = \"{name}\": the socket that the service manager handed over {what}")]
    Unfit {
        /// Its name.
        name: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The service manager handed over no socket of this name.
    #[error(
        "listen.systemd = \"{name}\": the service manager handed over no socket of this name ({}); write \
         FileDescriptorName={name} into the .socket unit, and start that unit and not the program by hand",
        if given.is_empty() { "it handed over none".to_owned() } else { format!("those it did: {}", given.join(", ")) }
    )]
    NotHandedOver {
        /// The name.
        name: String,
        /// The names of those that it did hand over.
        given: Vec<String>,
    },
    /// Anything else.
    #[error("{}: can't listen: {error}; the directory must exist and belong to the broker's user", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl UnixDoor {
    /// Opens the socket, with this file mode. A socket that a killed process left behind is replaced.
    pub(super) fn bind(path: &Path, mode: u32) -> Result<Self, CannotListen> {
        make_sure_that_nobody_listens(path)?;
        // Made aside and moved into place, so that nobody finds it with another mode, or not at all.
        let made_at = aside(path).unwrap_or_else(|| path.to_owned());
        let open = || {
            match fs::remove_file(&made_at) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let (socket, identity) = open(&made_at, mode)?;
            if made_at != path {
                fs::rename(&made_at, path)?;
            }
            Ok(Self::new(socket, path.to_owned(), identity))
        };
        open().map_err(|error| {
            if made_at != path {
                let _ = fs::remove_file(&made_at);
            }
            CannotListen::Failed { path: path.to_owned(), error }
        })
    }
}

fn open(path: &Path, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Whatever the umask made of it: nobody gets in before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    let found = fs::symlink_metadata(path)?;
    Ok((socket.listen(BACKLOG)?, (found.dev(), found.ino())))
}

fn make_sure_that_nobody_listens(path: &Path) -> Result<(), CannotListen> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(CannotListen::NotASocket(path.to_owned())),
        Ok(_) => {}
        // If it is anything else than that there is nothing, opening fails for the same reason.
        Err(_) => return Ok(()),
    }
    match knock(path) {
        // A queue that is full is somebody's.
        Ok(()) | Err(Errno::EAGAIN) => Err(CannotListen::InUse(path.to_owned())),
        // The one answer of a socket that no process has open, and of one that vanished meanwhile.
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        Err(error) => Err(CannotListen::Unclear { path: path.to_owned(), error: error.into() }),
    }
}

/// Connects, without waiting for a place in the queue.
fn knock(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let knocking = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(knocking.as_raw_fd(), &UnixAddr::new(path)?)
}

/// A name in the same directory that nobody else uses. `None` if the kernel has no room for it: then the socket is made in
/// place.
fn aside(path: &Path) -> Option<PathBuf> {
    let name = OsString::from(format!(".{}", std::process::id()));
    let aside = path.with_file_name(name);
    (aside.as_os_str().as_bytes().len() <= LONGEST_PATH && aside != path).then_some(aside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener as StdListener, UnixStream};

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// A path of this many bytes, in a folder that is there.
    fn long_path(folder: &Path, length: usize, name: &str) -> PathBuf {
        let filler = length - folder.as_os_str().len() - name.len() - 2;
        let inner = folder.join("d".repeat(filler));
        fs::create_dir_all(&inner).unwrap();
        let path = inner.join(name);
        assert_eq!(path.as_os_str().len(), length);
        path
    }

    #[tokio::test]
    async fn a_socket_opens_wherever_the_kernel_has_room_for_its_path() {
        let folder = folder();
        for length in 98..=LONGEST_PATH {
            for name in ["s", "broker.sock"] {
                let path = long_path(folder.path(), length, name);
                let listener =
                    UnixDoor::bind(&path, 0o640).unwrap_or_else(|error| panic!("{length}: {error}"));
                assert_eq!(mode_of(&path), 0o640);
                UnixStream::connect(&path).unwrap();
                let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
                assert_eq!(beside, 1, "nothing is left beside it");
                drop(listener);
                assert!(!path.exists());
                fs::remove_dir(path.parent().unwrap()).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_also_where_there_is_no_room_aside() {
        let folder = folder();
        for name in ["s", "broker.sock"] {
            let path = long_path(folder.path(), LONGEST_PATH, name);
            drop(StdListener::bind(&path).unwrap());
            assert!(path.exists());
            let _listener = UnixDoor::bind(&path, 0o666).unwrap();
            UnixStream::connect(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_socket_on_which_somebody_listens_is_left_alone_even_if_its_queue_is_full() {
        let folder = folder();
        let path = folder.path().join("broker.sock");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _theirs = socket.listen(0).unwrap();
        for _ in 0..3 {
            let refused = UnixDoor::bind(&path, 0o666).err().unwrap();
            assert!(matches!(refused, CannotListen::InUse(_)), "{refused}");
        }
        assert_eq!(knock(&path), Err(Errno::EAGAIN), "nobody has accepted those who knocked");
    }

    #[tokio::test]
    async fn a_socket_of_which_nothing_can_be_told_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("broker.sock");
        let _theirs = UnixDatagram::bind(&path).unwrap();
        let refused = UnixDoor::bind(&path, 0o666).err().unwrap();
        assert!(matches!(refused, CannotListen::Unclear { .. }), "{refused}");
        assert!(refused.to_string().contains("can't be told whether another process listens"), "{refused}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn the_path_of_a_successor_is_not_removed() {
        let folder = folder();
        let path = folder.path().join("broker.sock");
        let first = UnixDoor::bind(&path, 0o666).unwrap();
        fs::remove_file(&path).unwrap();
        let second = UnixDoor::bind(&path, 0o666).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }
}
