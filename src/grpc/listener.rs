//! The doors: sockets, and the loop that accepts.
//!
//! tonic's own loop waits for ever on one silent peer when it stops, spins when file descriptors run out, and bounds
//! neither connections nor first bytes; so this one is ours. It is one loop for every kind of door: a `Socket` is what
//! differs between them, which is how they learn who comes. It promises:
//!
//! - that nobody comes in for whom the broker has no place, and that who the policy doesn't know stays for seconds;
//! - that the socket is closed, and its path free for a successor or kept by the service manager that opened it, as soon as [`Listener::serve`] is told to drain: from
//!   then on a client is refused at once, and never kept waiting for a process that ends;
//! - that `serve` returns as soon as it is told to, whoever is silent.

mod bind;
mod inherited;
mod tls;
mod unix;

use std::{io, net::SocketAddr, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

pub use bind::CannotListen;
use nix::errno::Errno;
use tls::TlsDoor;
use tokio::time::MissedTickBehavior;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use unix::UnixDoor;

use super::{
    Service,
    connection::{Stay, Wire, connection},
    tls::{TlsMaterial, Trust},
};
use crate::{
    audit::AuditLog,
    broker::{NoPlace, Place},
    caller::{CallerName, Peer},
    clock::Clock,
    config::Limits,
};

/// How long to pause when no connection can be accepted, for want of file descriptors above all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often strangers that find no place are told of: anybody can knock ten thousand times a second.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A socket that accepts connections, and knows who is at their other ends.
trait Socket: Send {
    /// What a connection is read from and written to.
    type Stream: Wire;

    /// The next connection whose peer is known; who did not get that far is put on record. Loses none when it is dropped half
    /// way.
    fn arrival(
        &mut self,
        audit: &AuditLog,
    ) -> impl Future<Output = Result<Arrival<Self::Stream>, NoArrival>> + Send;

    /// Where it is, for logs.
    fn place(&self) -> &str;
}

/// A connection, and who is at its other end.
struct Arrival<S> {
    stream: S,
    peer: Peer,
    /// In what vouched for the peer, where that may end before the connection does.
    trust: Option<Trust>,
}

/// Why nobody arrives.
#[derive(Debug, thiserror::Error)]
enum NoArrival {
    /// The system gives no connection: it has no file descriptors left, above all.
    #[error("can't accept connections: {0}")]
    NotAccepted(io::Error),
    /// One connection was over before it was accepted, and the next may be fine.
    #[error("a connection was over before it was accepted: {0}")]
    Over(io::Error),
    /// The system doesn't say whose a connection is. It is closed.
    #[error("the kernel doesn't tell who connects; closed: {0}")]
    Nobody(io::Error),
}

impl NoArrival {
    /// What it means that `accept` failed: <https://man7.org/linux/man-pages/man2/accept.2.html#RETURN_VALUE>, which has a
    /// network's errors tell of the one connection, and a firewall's.
    fn of_accept(error: io::Error) -> Self {
        let of_one = matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(
                Errno::ECONNABORTED
                    | Errno::EPROTO
                    | Errno::ENETDOWN
                    | Errno::ENOPROTOOPT
                    | Errno::EHOSTDOWN
                    | Errno::ENONET
                    | Errno::EHOSTUNREACH
                    | Errno::EOPNOTSUPP
                    | Errno::ENETUNREACH
                    | Errno::EPERM
                    | Errno::ECONNRESET
                    | Errno::ETIMEDOUT
            )
        );
        if of_one { Self::Over(error) } else { Self::NotAccepted(error) }
    }
}

/// A door that is open.
pub struct Listener(Kind);

enum Kind {
    Unix(UnixDoor),
    Tls(TlsDoor),
}

impl Listener {
    /// Opens a Unix socket, with this file mode. A socket that a killed process left behind is replaced.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, CannotListen> {
        UnixDoor::bind(path, mode).map(Kind::Unix).map(Self)
    }

    /// Opens a TCP port, behind mutual TLS.
    pub fn bind_tls(
        address: SocketAddr,
        material: Arc<TlsMaterial>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CannotListen> {
        TlsDoor::bind(address, material, limits, clock).map(Kind::Tls).map(Self)
    }

    /// Serves on a socket that the service manager opened under this name: a Unix socket, or with `material` a TCP port
    /// behind mutual TLS. Its path, if it has one, is left in place at the end, for callers to queue at.
    pub fn inherit(
        socket: OwnedFd,
        name: &str,
        material: Option<Arc<TlsMaterial>>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CannotListen> {
        Ok(Self(match material {
            None => Kind::Unix(UnixDoor::inherit(socket, name)?),
            Some(material) => Kind::Tls(TlsDoor::inherit(socket, name, material, limits, clock)?),
        }))
    }

    /// Where it listens, as one would tell a person.
    pub fn place(&self) -> &str {
        match &self.0 {
            Kind::Unix(door) => door.place(),
            Kind::Tls(door) => door.place(),
        }
    }

    /// Serves until `drain` is cancelled; then lets the calls under way finish, until `abort` is cancelled. Returns when the
    /// last connection is closed.
    pub async fn serve(
        self,
        service: Service,
        limits: Limits,
        drain: CancellationToken,
        abort: CancellationToken,
    ) {
        match self.0 {
            Kind::Unix(door) => serve(door, service, limits, drain, abort).await,
            Kind::Tls(door) => serve(door, service, limits, drain, abort).await,
        }
    }
}

/// The loop that accepts: see [`Listener::serve`].
async fn serve<S: Socket>(
    mut socket: S,
    service: Service,
    limits: Limits,
    drain: CancellationToken,
    abort: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut door = Door { place: socket.place().into(), refusing: false, refused: Refused::default() };
    let mut report = tokio::time::interval(REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let arrival = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            _ = report.tick(), if door.refused != Refused::default() => {
                door.tell_of_refused();
                continue;
            }
            arrival = socket.arrival(service.audit()) => arrival,
        };
        let Arrival { stream, peer, trust } = match arrival {
            Ok(arrival) => arrival,
            Err(error @ NoArrival::Over(_)) => {
                tracing::debug!(socket = %door.place, "{error}");
                // Whoever makes many of them doesn't get the processor to himself.
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => {
                door.refuse(|socket| tracing::error!(socket, "{error}"));
                if matches!(error, NoArrival::NotAccepted(_)) {
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        () = drain.cancelled() => break,
                    }
                }
                continue;
            }
        };
        let Some(guest) = door.let_in(peer, &service, &limits) else { continue };
        let (service, limits, drain, abort) = (service.clone(), limits.clone(), drain.clone(), abort.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection(stream, guest.peer, trust, guest.stay, service, limits, drain) => {}
            }
            drop(guest.place);
        });
    }
    // Who is in the queue is refused, and not left there until the last call has ended.
    drop(socket);
    tasks.close();
    tasks.wait().await;
}

/// Who comes in.
struct Guest {
    peer: Arc<Peer>,
    stay: Stay,
    place: Place,
}

/// Decides who comes in, and tells when nobody can.
struct Door {
    /// Where it is, for logs.
    place: Box<str>,
    refusing: bool,
    refused: Refused,
}

/// Who was refused since that was told.
#[derive(Default, PartialEq)]
struct Refused {
    strangers: u64,
    /// Of callers that have as many connections as they may: how many, and the last of them.
    crowding: Option<(u64, CallerName, usize)>,
}

impl Door {
    fn let_in(&mut self, peer: Peer, service: &Service, limits: &Limits) -> Option<Guest> {
        let peer = Arc::new(peer);
        let place = match service.place_for(&peer) {
            Ok(place) if place.of_caller => place,
            Ok(place) => return Some(Guest { peer, stay: Stay::of_stranger(limits), place }),
            Err(NoPlace::Strangers) => {
                self.refused.strangers += 1;
                return None;
            }
            Err(NoPlace::Caller { name, most }) => {
                let before = self.refused.crowding.take().map_or(0, |(before, ..)| before);
                self.refused.crowding = Some((before + 1, name, most));
                return None;
            }
            Err(NoPlace::Callers { most }) => {
                self.refuse(|socket| {
                    tracing::warn!(
                        most,
                        socket,
                        "all connections are taken: new ones are closed at once; raise [limits] max_connections, or \
                         look for a caller that opens one for each call"
                    );
                });
                return None;
            }
        };
        if std::mem::take(&mut self.refusing) {
            tracing::info!(socket = %self.place, "accepting connections again");
        }
        Some(Guest { peer, stay: Stay::of_caller(limits), place })
    }

    /// Tells that nobody comes in, unless that is known already.
    fn refuse(&mut self, tell: impl FnOnce(&str)) {
        if !std::mem::replace(&mut self.refusing, true) {
            tell(&self.place);
        }
    }

    fn tell_of_refused(&mut self) {
        let Refused { strangers, crowding } = std::mem::take(&mut self.refused);
        if strangers > 0 {
            tracing::warn!(
                refused = strangers,
                socket = %self.place,
                "peers that are no callers have taken all connections that such peers get; new ones of theirs \
                 are closed at once"
            );
        }
        if let Some((refused, caller, most)) = crowding {
            tracing::warn!(
                refused,
                %caller,
                most,
                socket = %self.place,
                "a caller has taken all connections that one caller gets; new ones of its are closed at once; have it \
                 share one in each process, or raise [limits] max_connections_per_caller"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_pauses_for_what_the_host_lacks_and_not_for_a_connection_that_is_over() {
        let pauses =
            |error: Errno| matches!(NoArrival::of_accept(io::Error::from(error)), NoArrival::NotAccepted(_));
        for of_host in
            [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EINVAL, Errno::EIO]
        {
            assert!(pauses(of_host), "{of_host}");
        }
        for of_one in [
            Errno::ECONNABORTED,
            Errno::EPROTO,
            Errno::ENETDOWN,
            Errno::ENOPROTOOPT,
            Errno::EHOSTDOWN,
            Errno::ENONET,
            Errno::EHOSTUNREACH,
            Errno::EOPNOTSUPP,
            Errno::ENETUNREACH,
            Errno::EPERM,
        ] {
            assert!(!pauses(of_one), "{of_one}");
        }
        assert!(matches!(NoArrival::of_accept(io::Error::other("anything")), NoArrival::NotAccepted(_)));
    }
}
