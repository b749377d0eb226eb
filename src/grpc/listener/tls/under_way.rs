//! The handshakes under way, and which of them gives way when there are too many.
//!
//! Who comes in good faith needs milliseconds, or on a bad line a second; who doesn't opens many and ends none. So one of
//! the address that has most gives way: one that has not said a word, if there is such, and the oldest of those. However
//! many one address opens, they push out each other, and nobody who comes from elsewhere.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::oneshot;

/// The handshakes under way.
#[derive(Default)]
pub(super) struct UnderWay {
    /// By their age.
    all: BTreeMap<u64, Handshake>,
    /// How many each origin has; none has none.
    of_origin: HashMap<IpAddr, usize>,
    next: u64,
}

struct Handshake {
    origin: IpAddr,
    spoke: Arc<AtomicBool>,
    /// Dropping it ends the handshake.
    _keep: oneshot::Sender<()>,
}

/// A handshake that begins.
pub(super) struct Begun {
    pub(super) number: u64,
    /// To be set when the peer has said something.
    pub(super) spoke: Arc<AtomicBool>,
    /// Comes when it must end.
    pub(super) give_way: oneshot::Receiver<()>,
}

impl UnderWay {
    /// One more from this address. Where there are `most` already, one of those from the busiest address ends, which may be
    /// the same.
    pub(super) fn begin(&mut self, address: IpAddr, most: usize) -> Begun {
        let origin = origin(address);
        *self.of_origin.entry(origin).or_default() += 1;
        if self.all.len() >= most
            && let Some(number) = self.who_gives_way()
        {
            self.end(number);
        }
        let (keep, give_way) = oneshot::channel();
        let (number, spoke) = (self.next, Arc::new(AtomicBool::new(false)));
        self.next += 1;
        self.all.insert(number, Handshake { origin, spoke: Arc::clone(&spoke), _keep: keep });
        Begun { number, spoke, give_way }
    }

    /// This one is over, if it wasn't.
    pub(super) fn end(&mut self, number: u64) {
        let Some(over) = self.all.remove(&number) else { return };
        if let Some(count) = self.of_origin.get_mut(&over.origin) {
            *count -= 1;
            if *count == 0 {
                self.of_origin.remove(&over.origin);
            }
        }
    }

    /// Looks at all of them, which takes less than the handshake that is begun.
    fn who_gives_way(&self) -> Option<u64> {
        let rank = |(number, one): &(&u64, &Handshake)| {
            let busy = self.of_origin.get(&one.origin).copied().unwrap_or_default();
            (Reverse(busy), one.spoke.load(Ordering::Relaxed), **number)
        };
        self.all.iter().min_by_key(rank).map(|(number, _)| *number)
    }
}

/// Who is counted together: an IPv4 address, or the 64 bits of an IPv6 address that name a network, in which one host has as
/// many addresses as it likes.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: &str = "192.0.2.1";
    const HONEST: &str = "198.51.100.7";

    fn begin(all: &mut UnderWay, address: &str, most: usize) -> Begun {
        all.begin(address.parse().unwrap(), most)
    }

    fn goes_on(begun: &mut Begun) -> bool {
        begun.give_way.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn a_flood_from_one_address_pushes_out_nobody_else() {
        let mut all = UnderWay::default();
        let mut honest = begin(&mut all, HONEST, 8);
        let mut flood: Vec<_> = (0..1000).map(|_| begin(&mut all, FLOOD, 8)).collect();
        assert!(goes_on(&mut honest));
        assert_eq!(flood.iter_mut().filter_map(|one| goes_on(one).then_some(one.number)).count(), 7);
        assert!(flood[993..].iter_mut().all(goes_on), "the youngest are left");
        // And nobody is kept out by it.
        let mut late = begin(&mut all, "203.0.113.9", 8);
        flood.extend((0..1000).map(|_| begin(&mut all, FLOOD, 8)));
        assert!(goes_on(&mut honest) && goes_on(&mut late));
        assert_eq!(all.all.len(), 8);
        for one in flood.iter().chain([&honest, &late]) {
            all.end(one.number);
        }
        assert!(all.all.is_empty() && all.of_origin.is_empty());
    }

    #[test]
    fn of_the_busiest_address_those_go_first_that_say_nothing() {
        let mut all = UnderWay::default();
        let mut begun: Vec<_> = (0..4).map(|_| begin(&mut all, FLOOD, 4)).collect();
        for speaking in [0, 2] {
            begun[speaking].spoke.store(true, Ordering::Relaxed);
        }
        for gone in [1, 3, 0, 2] {
            assert!(goes_on(&mut begun[gone]));
            let next = begin(&mut all, FLOOD, 4);
            next.spoke.store(true, Ordering::Relaxed);
            assert!(!goes_on(&mut begun[gone]), "{gone}");
            begun.push(next);
        }
    }

    #[test]
    fn where_all_are_alike_the_oldest_goes() {
        let mut all = UnderWay::default();
        let mut begun: Vec<_> = (0..4).map(|n| begin(&mut all, &format!("192.0.2.{n}"), 4)).collect();
        begin(&mut all, "192.0.2.4", 4);
        let left: Vec<_> = begun.iter_mut().map(goes_on).collect();
        assert_eq!(left, [false, true, true, true]);
    }

    #[test]
    fn a_network_is_one_origin_and_an_address_of_ipv4_is_one_however_it_is_written() {
        let of = |address: &str| origin(address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::9"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
