//! Doors on sockets that the service manager opened. It keeps them while the broker restarts, and callers wait there.
//!
//! What was handed over is looked at before it is served on: a datagram socket, or a port where a Unix socket was meant,
//! would otherwise fail at the first caller.

use std::{
    io,
    net::TcpListener as StdTcpListener,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener as StdUnixListener,
    },
    sync::Arc,
};

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use tokio::net::{TcpListener, UnixListener};

use super::{CannotListen, tls::TlsDoor, unix::UnixDoor};
use crate::{clock::Clock, config::Limits, grpc::tls::TlsMaterial};

impl UnixDoor {
    /// The door on a socket that was handed over under this name.
    pub(super) fn inherit(socket: OwnedFd, name: &str) -> Result<Self, CannotListen> {
        let unfit = |what: String| CannotListen::Unfit { name: name.to_owned(), what };
        match kind_of(&socket).map_err(&unfit)? {
            AddressFamily::Unix => {}
            AddressFamily::Inet | AddressFamily::Inet6 => {
                return Err(unfit(
                    "is a TCP port, on which callers show certificates: write cert, key and client_ca beside listen.systemd"
                        .to_owned(),
                ));
            }
            other => return Err(unfit(of_no_use(other))),
        }
        let open = || {
            let socket = StdUnixListener::from(socket);
            socket.set_nonblocking(true)?;
            let path = socket.local_addr()?.as_pathname().map(|path| path.display().to_string());
            io::Result::Ok((
                UnixListener::from_std(socket)?,
                path.unwrap_or_else(|| format!("systemd:{name}")),
            ))
        };
        let (socket, place) = open().map_err(|error| unfit(cannot_be_used(&error)))?;
        Ok(Self::on_inherited(socket, place))
    }
}

impl TlsDoor {
    /// The door on a port that was handed over under this name.
    pub(super) fn inherit(
        socket: OwnedFd,
        name: &str,
        material: Arc<TlsMaterial>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CannotListen> {
        let unfit = |what: String| CannotListen::Unfit { name: name.to_owned(), what };
        match kind_of(&socket).map_err(&unfit)? {
            AddressFamily::Inet | AddressFamily::Inet6 => {}
            AddressFamily::Unix => {
                return Err(unfit(
                    "is a Unix socket, whose callers the kernel vouches for: take cert, key, client_ca, client_crl and min_tls \
                     out beside listen.systemd"
                        .to_owned(),
                ));
            }
            other => return Err(unfit(of_no_use(other))),
        }
        let open = || {
            let socket = StdTcpListener::from(socket);
            socket.set_nonblocking(true)?;
            let place = socket.local_addr()?.to_string();
            io::Result::Ok((TcpListener::from_std(socket)?, place))
        };
        let (socket, place) = open().map_err(|error| unfit(cannot_be_used(&error)))?;
        Ok(Self::new(socket, place, material, limits, clock))
    }
}

/// What sort of socket it is, if streams can be accepted from it.
fn kind_of(socket: &OwnedFd) -> Result<AddressFamily, String> {
    let told = |errno: nix::Error| cannot_be_used(&errno.into());
    let (fd, raw) = (socket.as_fd(), socket.as_raw_fd());
    if getsockopt(&fd, sockopt::SockType).map_err(told)? != SockType::Stream {
        return Err("takes no streams: write ListenStream= into its .socket unit".to_owned());
    }
    if !getsockopt(&fd, sockopt::AcceptConn).map_err(told)? {
        return Err("is one connection, and accepts none: write Accept=no into its .socket unit".to_owned());
    }
    let address: SockaddrStorage = getsockname(raw).map_err(told)?;
    address.family().ok_or_else(|| "has no address".to_owned())
}

fn of_no_use(family: AddressFamily) -> String {
    format!("is of the family {family:?}; the broker serves on Unix sockets and TCP ports")
}

fn cannot_be_used(error: &io::Error) -> String {
    format!("can't be used: {error}")
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::{UnixDatagram, UnixStream},
        path::Path,
    };

    use super::*;

    fn unix(path: &Path) -> OwnedFd {
        StdUnixListener::bind(path).unwrap().into()
    }

    fn refused(socket: impl Into<OwnedFd>) -> String {
        UnixDoor::inherit(socket.into(), "broker").err().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_socket_of_somebody_else_is_served_on_and_left_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        let theirs = unix(&path);
        let door = UnixDoor::inherit(theirs.try_clone().unwrap(), "broker").unwrap();
        UnixStream::connect(&path).unwrap();
        drop(door);
        assert!(path.exists());
        UnixStream::connect(&path).expect("callers queue for the next process");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_with_what_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(refused(one).contains("Accept=no"));
        assert!(
            refused(UnixDatagram::bind(folder.path().join("datagram")).unwrap()).contains("ListenStream=")
        );
        assert!(refused(std::fs::File::open("/dev/null").unwrap()).contains("can't be used"));
        let port = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let told = refused(port);
        assert!(told.starts_with("listen.systemd = \"broker\": ") && told.contains("client_ca"), "{told}");
    }

    #[test]
    fn a_socket_that_is_not_there_is_named_and_so_are_those_that_are() {
        let none = CannotListen::NotHandedOver { name: "broker".into(), given: Vec::new() };
        assert!(none.to_string().contains("it handed over none"), "{none}");
        let others =
            CannotListen::NotHandedOver { name: "broker".into(), given: vec!["a".into(), "b".into()] };
        assert!(others.to_string().contains("those it did: a, b"), "{others}");
    }
}
