//! The door on a TCP port, behind mutual TLS: a certificate tells who comes.
//!
//! Until its handshake is over, a peer is nobody. So handshakes are bounded in number and in time, and where there are too
//! many, one gives way ([`under_way`]).

mod under_way;

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::libc;
use rustls::ProtocolVersion;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use under_way::{Begun, UnderWay};

use super::{Arrival, CannotListen, NoArrival, Socket};
use crate::{
    audit::AuditLog,
    caller::{NoName, Peer},
    clock::Clock,
    config::Limits,
    grpc::{
        connection::Wire,
        tls::{Reason, TlsMaterial, Trust, certified_name, in_words},
    },
};

/// How many connections wait to be accepted. The kernel takes the smaller of this and its own limit.
const BACKLOG: i32 = 1024;

/// A peer whose host vanished is found by HTTP/2's own pings; this finds one that vanishes before it speaks HTTP/2.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How often failed handshakes are told of: anybody can fail ten thousand times a second.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A TCP socket that accepts connections and speaks TLS with them.
pub(super) struct TlsDoor {
    socket: TcpListener,
    place: String,
    entry: Entry,
    most: usize,
    handshakes: JoinSet<(u64, Met)>,
    under_way: UnderWay,
    failures: Failures,
    report: Interval,
}

/// How a handshake ended.
type Met = Result<Arrival<TlsStream<TcpStream>>, NotMet>;

/// What a handshake needs.
#[derive(Clone)]
struct Entry {
    material: Arc<TlsMaterial>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

impl TlsDoor {
    /// Opens the port.
    pub(super) fn bind(
        address: SocketAddr,
        material: Arc<TlsMaterial>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CannotListen> {
        let open = || {
            let socket = open(address)?;
            Ok((socket.local_addr()?, socket))
        };
        let (bound, socket) = open().map_err(|error| CannotListen::Port { address, error })?;
        Ok(Self::new(socket, bound.to_string(), material, limits, clock))
    }

    /// The door on a socket that is open.
    pub(super) fn new(
        socket: TcpListener,
        place: String,
        material: Arc<TlsMaterial>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            place,
            entry: Entry { material, clock, timeout: limits.handshake_timeout },
            most: limits.max_handshakes,
            handshakes: JoinSet::new(),
            under_way: UnderWay::default(),
            failures: Failures::default(),
            report,
        }
    }

    fn meet(&mut self, stream: TcpStream, address: SocketAddr) {
        let entry = self.entry.clone();
        let Begun { number, spoke, give_way } = self.under_way.begin(address.ip(), self.most);
        self.handshakes.spawn(async move {
            let met = tokio::select! {
                met = entry.meet(stream, address, &spoke) => met,
                _ = give_way => Err(NotMet { address, why: Why::GaveWay }),
            };
            (number, met)
        });
    }
}

impl Socket for TlsDoor {
    type Stream = TlsStream<TcpStream>;

    async fn arrival(&mut self, audit: &AuditLog) -> Result<Arrival<Self::Stream>, NoArrival> {
        loop {
            tokio::select! {
                _ = self.report.tick(), if self.failures.count > 0 => self.failures.tell(&self.place),
                Some(ended) = self.handshakes.join_next() => {
                    // A handshake that panics ends the process, and none is aborted but with its set.
                    let Ok((number, met)) = ended else { continue };
                    self.under_way.end(number);
                    match met {
                        Ok(arrival) => return Ok(arrival),
                        Err(not_met) => self.failures.note(not_met, audit),
                    }
                }
                accepted = self.socket.accept() => {
                    let (stream, address) = accepted.map_err(NoArrival::of_accept)?;
                    self.meet(stream, address);
                }
            }
        }
    }

    fn place(&self) -> &str {
        &self.place
    }
}

impl Wire for TlsStream<TcpStream> {
    fn holds_bytes(&self) -> bool {
        let mut bytes: libc::c_int = 0;
        #[expect(unsafe_code, reason = "no crate here wraps SIOCOUTQ")]
        // SAFETY: the socket is open for as long as it is borrowed, and the pointer is to the int that the call writes.
        let outcome = unsafe { libc::ioctl(self.get_ref().0.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        outcome == 0 && bytes > 0
    }

    fn forget_bytes(&self) {
        // Fails for no socket that is open.
        let _ = SockRef::from(self.get_ref().0).set_linger(Some(Duration::ZERO));
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        RawSocket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of a process before us may linger; a process that listens still keeps us out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that an address means the same whatever the host's settings, and IPv4 peers have IPv4 addresses.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Entry {
    async fn meet(self, stream: TcpStream, address: SocketAddr, spoke: &AtomicBool) -> Met {
        let because = |why| NotMet { address, why };
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        // Before the configuration is taken: a change after this is looked at again.
        let changes = self.material.changes();
        let mut handshake = pin!(tokio::time::timeout(self.timeout, async {
            // A port scan or a load balancer's look says nothing at all, and is nobody's failure.
            if stream.peek(&mut [0]).await.map_err(Why::Broken)? == 0 {
                return Err(Why::Silent);
            }
            spoke.store(true, Ordering::Relaxed);
            let material = Arc::clone(&self.material.current());
            let accepted = TlsAcceptor::from(Arc::clone(material.server())).accept(stream).await;
            accepted.map(|stream| (stream, material)).map_err(Why::Broken)
        }));
        let (stream, material) = handshake.as_mut().await.unwrap_or(Err(Why::Slow)).map_err(because)?;
        let (_, session) = stream.get_ref();
        let chain: Vec<_> = session
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|one| one.clone().into_owned())
            .collect();
        let Some(first) = chain.first() else { return Err(because(Why::Nameless)) };
        let peer = Peer::Tls { address, name: certified_name(first) };
        let tls12 = session.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        let (all, clock) = (Arc::clone(&self.material), Arc::clone(&self.clock));
        let trust = Some(Trust::new(chain, tls12, all, material, changes, clock));
        Ok(Arrival { stream, peer, trust })
    }
}

/// A handshake that came to nothing.
#[derive(Debug)]
struct NotMet {
    address: SocketAddr,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// It connected and left.
    Silent,
    /// The time was up.
    Slow,
    /// There were too many.
    GaveWay,
    /// No certificate, which TLS should not have let pass.
    Nameless,
    /// TLS says why, or the network does.
    Broken(io::Error),
}

/// Those that came to nothing since that was last told.
#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<(SocketAddr, String)>,
}

impl Failures {
    fn note(&mut self, NotMet { address, why }: NotMet, audit: &AuditLog) {
        let Reason { word, why } = match why {
            Why::Silent => {
                tracing::debug!(%address, "connected and left without a word");
                return;
            }
            Why::Slow => Reason::new("HANDSHAKE_TIMEOUT", "it took longer than limits.handshake_timeout"),
            Why::GaveWay => Reason::new(
                "TOO_MANY_HANDSHAKES",
                "there were too many (limits.max_handshakes), and most from its address",
            ),
            Why::Nameless => Reason::new("NO_CERTIFICATE", "it shows no certificate"),
            Why::Broken(error) => in_words(&error),
        };
        tracing::debug!(%address, "TLS handshake failed: {why}");
        let nobody = Peer::Tls { address, name: Err(NoName::Nothing) };
        audit.handshake_failed(&nobody, word, &why);
        self.count += 1;
        self.last = Some((address, why));
    }

    fn tell(&mut self, place: &str) {
        let Self { count, last: Some((address, why)) } = std::mem::take(self) else { return };
        tracing::warn!(failed = count, socket = place, %address, "TLS handshakes failed, the last because: {why}");
    }
}
