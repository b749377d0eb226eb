//! Whether a peer's certificate is still believed, for as long as its connection lasts.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::{Prepared, Reason, TlsMaterial, names, reasons};
use crate::clock::Clock;

/// The longest that is slept without a look at the wall clock, which somebody may set, and which a suspend moves on.
const LONGEST_STEP: Duration = Duration::from_secs(30);

/// What a peer showed, and what it was believed by.
pub(crate) struct Trust {
    /// Its certificate, and those that it sent along.
    chain: Vec<CertificateDer<'static>>,
    /// Whether it speaks TLS 1.2.
    tls12: bool,
    material: Arc<TlsMaterial>,
    /// What believed it last.
    believed_by: ArcSwap<Prepared>,
    changes: watch::Receiver<()>,
    clock: Arc<dyn Clock>,
}

impl Trust {
    /// `chain` has been verified by `believed_by`, which was in force when `changes` was made, or is newer.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        tls12: bool,
        material: Arc<TlsMaterial>,
        believed_by: Arc<Prepared>,
        changes: watch::Receiver<()>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { chain, tls12, material, believed_by: ArcSwap::new(believed_by), changes, clock }
    }

    /// Comes when the chain is no longer believed, or the peer speaks a TLS that is no longer taken; and says why.
    pub(crate) async fn ends(&self) -> Reason {
        let mut changes = self.changes.clone();
        let ends: Vec<_> = self.chain.iter().filter_map(|one| names::end(one)).collect();
        loop {
            tokio::select! {
                // The material outlives its connections: we hold it.
                _ = changes.changed() => {}
                () = next(&ends, &*self.clock) => {}
            }
            if let Err(why) = self.verify() {
                return why;
            }
        }
    }

    /// Whether the chain is believed by what is in force, or why not. Costs nothing where that is what believed it last; its
    /// end is for [`Trust::ends`] to notice.
    pub(crate) fn holds(&self) -> Result<(), Reason> {
        if Arc::ptr_eq(&self.believed_by.load(), &self.material.current()) { Ok(()) } else { self.verify() }
    }

    fn verify(&self) -> Result<(), Reason> {
        let Some((end_entity, intermediates)) = self.chain.split_first() else {
            return Err(Reason::new("NO_CERTIFICATE", "it shows no certificate"));
        };
        let now = unix_time(self.clock.now().wall);
        let material = Arc::clone(&self.material.current());
        if self.tls12 && !material.files().tls12 {
            return Err(Reason::new(
                "TLS_INCOMPATIBLE",
                "it speaks an older TLS than listen.min_tls allows by now",
            ));
        }
        let verified = material.verifier().verify_client_cert(end_entity, intermediates, now);
        verified.map_err(|error| reasons::of_tls(&error))?;
        self.believed_by.store(material);
        Ok(())
    }
}

/// Comes when the wall clock is past the first of these that lies ahead.
async fn next(ends: &[Timestamp], clock: &dyn Clock) {
    let now = clock.now().wall;
    let Some(over) = ends.iter().map(|end| over(*end)).filter(|over| *over > now).min() else {
        return std::future::pending().await;
    };
    while clock.now().wall < over {
        let left = Duration::try_from(over.duration_since(clock.now().wall)).unwrap_or_default();
        tokio::time::sleep((left + Duration::from_millis(1)).min(LONGEST_STEP)).await;
    }
}

/// When a certificate of this end holds no more: it does through the whole second of its end, and that is how time is counted
/// where it is verified.
fn over(end: Timestamp) -> Timestamp {
    end.checked_add(Duration::from_secs(1)).unwrap_or(Timestamp::MAX)
}

fn unix_time(at: Timestamp) -> UnixTime {
    let since = u64::try_from(at.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_holds_through_the_second_of_its_end_and_no_longer() {
        let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(over(end).to_string(), "2026-01-01T00:00:01Z");
        // What is verified counts whole seconds: at `over` it is past the end, and a moment before it is not.
        let moment_before = over(end) - Duration::from_nanos(1);
        assert_eq!(unix_time(moment_before), unix_time(end));
        assert!(unix_time(over(end)) > unix_time(end));
        assert_eq!(over(Timestamp::MAX), Timestamp::MAX);
    }
}
