//! Certificates that change on the disk: read again, all of a listener's at once, or none.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{CertificateFacts, CertificateState, Prepared, TlsMaterial, TlsProblem, material::Stamps};
use crate::clock::Clock;

/// How often the files are looked at: by their names, for the folders of secrets that orchestrators mount swap a link.
const EVERY: Duration = Duration::from_secs(5);

/// Puts what the files of these hold in force when they change, and tells of certificates that end. Until `stop`. Each is
/// followed by itself: a disk that hangs keeps only those back whose files are on it.
pub async fn follow(materials: Vec<Arc<TlsMaterial>>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let each = materials.into_iter().map(|material| Followed::new(material).follow(&*clock));
    stop.run_until_cancelled(join_all(each)).await;
}

/// One listener's material, and what was told of it.
struct Followed {
    material: Arc<TlsMaterial>,
    /// What was found on the disk that can't be used, and whether that has been told.
    refused: Option<(Stamps, bool)>,
    told: HashMap<String, CertificateState>,
}

enum Looked {
    Same,
    Another(Box<Prepared>),
    Refused(Stamps, TlsProblem),
}

impl Followed {
    fn new(material: Arc<TlsMaterial>) -> Self {
        Self { material, refused: None, told: HashMap::new() }
    }

    async fn follow(mut self, clock: &dyn Clock) {
        loop {
            self.tell_of_dates(clock.now().wall);
            tokio::time::sleep(EVERY).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let seen = self.material.current();
        let looking = Arc::clone(&seen);
        // A disk may hang. Then the listeners keep what they have.
        let looked = tokio::task::spawn_blocking(move || {
            let stamps = Stamps::of(looking.files());
            if stamps == looking.stamps {
                return Looked::Same;
            }
            match Prepared::read(looking.files()) {
                Ok(prepared) => Looked::Another(Box::new(prepared)),
                Err(problem) => Looked::Refused(stamps, problem),
            }
        });
        match looked.await {
            Ok(Looked::Another(prepared)) => {
                self.refused = None;
                self.put(&seen, *prepared);
            }
            Ok(Looked::Refused(stamps, problem)) => self.refuse(stamps, &problem),
            Ok(Looked::Same) | Err(_) => self.refused = None,
        }
    }

    fn put(&self, seen: &Arc<Prepared>, prepared: Prepared) {
        for warning in prepared.warnings() {
            tracing::warn!("{warning}");
        }
        // Else a reload came first, and the files are looked at again.
        let Some(replaced) = self.material.commit_over(seen, prepared) else { return };
        for certificate in self.material.current().facts() {
            tracing::info!(
                path = %certificate.path.display(),
                names = certificate.names.join(", "),
                until = certificate.not_after.map(|until| until.to_string()),
                "{}: in force from now on",
                certificate.role
            );
        }
        for warning in replaced.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Tells what can't be used, once, and not at first sight: whoever replaces several files may be half way.
    fn refuse(&mut self, stamps: Stamps, problem: &TlsProblem) {
        let told = match &self.refused {
            Some((before, true)) => *before == stamps,
            Some((before, false)) if *before == stamps => {
                tracing::warn!(
                    "certificates have changed and can't be used; the old ones stay in force: {problem}"
                );
                true
            }
            _ => false,
        };
        self.refused = Some((stamps, told));
    }

    /// Tells how each certificate stands in its time, when that changes.
    fn tell_of_dates(&mut self, now: Timestamp) {
        let current = self.material.current();
        let mut states = HashMap::new();
        for certificate in current.facts() {
            let CertificateFacts { path, names, not_before, .. } = certificate;
            let state = certificate.state(now);
            let which = format!("{} {} {not_before}", path.display(), names.join(", "));
            if self.told.get(&which) != Some(&state)
                && let Some(complaint) = certificate.complaint(now)
            {
                tracing::warn!(path = %path.display(), names = names.join(", "), "{complaint}");
            }
            states.insert(which, state);
        }
        self.told = states;
    }
}
