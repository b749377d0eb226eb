//! Everything is read again while the broker runs: prepared first, and put in force only when nothing can go wrong any more.
//!
//! The order, and why it is this one:
//!
//! 1. All files are read and checked, and what a reload can't take over is refused.
//! 2. Credentials that are other than before are proved by one login. Only there does it cost one, so that a change of
//!    policy doesn't. The keeper holds the new token back, and hands out the old one as before.
//! 3. That may have taken half a minute, and somebody may have been revoked meanwhile: certificates and lists are read again,
//!    so that an older list never takes the place of a newer one. This is the last step that can fail.
//! 4. Everything comes into force, trust and policy first: whoever lost its rights by this reload is judged by that before
//!    there is a new token to be handed.
//! 5. The keeper puts the new credentials in force, and publishes their token.
//!
//! A reload is given up as a whole until the fourth step, and not any more from there on.

mod material;

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

pub(super) use material::Material;
use material::{Reading, policy_changes, read, read_certificates, same, same_login};

use super::{open_limits, sign_keys, source_facts, token_settings, upstream, upstream_facts};
use crate::{
    broker::{Broker, Reload, ReloadRefused, Reloaded, Reloading, Requester, Standing},
    clock::{BootInstant, Clock, sleep_until},
    config::{CredentialSource, Environment, LoadedCredentials},
    grpc::tls::{Prepared, TlsMaterial},
    keeper::{Proved, Replacement, TokenKeeper},
    policy::Permission,
};

/// How long before its deadline a reload that waits for another is given up, so that the answer arrives within it.
const MARGIN: Duration = Duration::from_millis(50);

/// Reads everything again.
pub(super) struct Reloader {
    shared: Arc<Shared>,
    in_force: Arc<Mutex<Material>>,
}

struct Shared {
    file: PathBuf,
    environment: Environment,
    clock: Arc<dyn Clock>,
    /// The broker holds the services, which hold this.
    broker: Weak<Broker>,
    keeper: TokenKeeper,
    drain: CancellationToken,
    /// What the TCP ports show and believe, in the order of the configuration.
    ports: Vec<Arc<TlsMaterial>>,
    reading: Reading,
}

/// What a reloader is made of.
pub(super) struct ReloaderParts {
    pub(super) environment: Environment,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) broker: Arc<Broker>,
    pub(super) keeper: TokenKeeper,
    pub(super) drain: CancellationToken,
    pub(super) ports: Vec<Arc<TlsMaterial>>,
    pub(super) in_force: Material,
}

/// All that is to come into force, and what to say of it.
struct Ready {
    fresh: Material,
    loaded: LoadedCredentials,
    /// What each port believed before these were read, and what was read.
    certificates: Vec<(Arc<Prepared>, Prepared)>,
    standing: Standing,
    /// Other credentials, or another upstream.
    proved: Option<Proved>,
    changes: Vec<String>,
    notes: Vec<String>,
}

impl Reloader {
    pub(super) fn new(parts: ReloaderParts) -> Self {
        Self {
            shared: Arc::new(Shared {
                file: parts.in_force.config.file.clone(),
                environment: parts.environment,
                clock: parts.clock,
                broker: Arc::downgrade(&parts.broker),
                keeper: parts.keeper,
                drain: parts.drain,
                ports: parts.ports,
                reading: Reading::new(),
            }),
            in_force: Arc::new(Mutex::new(parts.in_force)),
        }
    }

    /// Waits until no other reload is under way.
    async fn turn(&self, deadline: Option<BootInstant>) -> Result<OwnedMutexGuard<Material>, ReloadRefused> {
        let too_late = async {
            match deadline {
                Some(deadline) => sleep_until(&*self.shared.clock, deadline - MARGIN).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            turn = Arc::clone(&self.in_force).lock_owned() => Ok(turn),
            () = self.shared.drain.cancelled() => Err(ReloadRefused::ShuttingDown),
            () = too_late => Err(ReloadRefused::AnotherUnderWay),
        }
    }
}

impl Reload for Reloader {
    fn reload(&self, requester: Requester, deadline: Option<BootInstant>) -> Reloading<'_> {
        Box::pin(async move {
            let turn = self.turn(deadline).await;
            let in_force = match turn.and_then(|turn| self.shared.may_still(&requester).map(|()| turn)) {
                Ok(turn) => turn,
                Err(refused) => return self.shared.noted(&requester, Err(refused)),
            };
            let shared = Arc::clone(&self.shared);
            // A task of its own: a client that hangs up must not leave half of it in force.
            let reloading = tokio::spawn(async move { shared.reload(&requester, deadline, in_force).await });
            reloading.await.unwrap_or(Err(ReloadRefused::ShuttingDown))
        })
    }
}

impl Shared {
    async fn reload(
        &self,
        requester: &Requester,
        deadline: Option<BootInstant>,
        mut in_force: OwnedMutexGuard<Material>,
    ) -> Result<Reloaded, ReloadRefused> {
        let broker = self.broker.upgrade().ok_or(ReloadRefused::ShuttingDown)?;
        let ready = tokio::select! {
            ready = self.prepare(&broker, &in_force, deadline) => ready,
            () = self.drain.cancelled() => Err(ReloadRefused::ShuttingDown),
        };
        let outcome = match ready {
            Ok(ready) => self.put_in_force(&broker, &mut in_force, ready).await,
            Err(refused) => Err(refused),
        };
        self.noted(requester, outcome)
    }

    /// Judges whoever asked for a reload again when its turn has come: the one before may have taken the right to it away. Who
    /// was revoked by that loses its connection, and what waits on it is dropped.
    fn may_still(&self, requester: &Requester) -> Result<(), ReloadRefused> {
        let Some((_, peer)) = requester.caller() else { return Ok(()) };
        let broker = self.broker.upgrade().ok_or(ReloadRefused::ShuttingDown)?;
        let judged = broker.authorize(peer, &[Permission::AdminReload]);
        judged.map(drop).map_err(ReloadRefused::NotAllowed)
    }

    /// Tells of the end of a reload.
    fn noted(
        &self,
        requester: &Requester,
        outcome: Result<Reloaded, ReloadRefused>,
    ) -> Result<Reloaded, ReloadRefused> {
        match &outcome {
            Ok(Reloaded { changes, notes, generation }) => {
                tracing::info!(by = %requester, generation, "reloaded: {}", changes.join("; "));
                for note in notes {
                    tracing::warn!("{note}");
                }
            }
            Err(refused) => tracing::error!(by = %requester, "reload refused: {refused}"),
        }
        if let Some(broker) = self.broker.upgrade() {
            broker.note_reload(requester, &outcome);
        }
        outcome
    }

    /// All that can fail. Nothing has changed when this returns, whatever it returns; and nothing will have, if it is dropped.
    async fn prepare(
        &self,
        broker: &Broker,
        in_force: &Material,
        deadline: Option<BootInstant>,
    ) -> Result<Ready, ReloadRefused> {
        let (file, environment, now) = (self.file.clone(), self.environment.clone(), self.clock.now().wall);
        let mut seen = self.believed();
        let (fresh, loaded, mut certificates) =
            self.reading.of(move || read(&file, &environment, now)).await?;
        let keys = in_force.config.needs_restart_for(&fresh.config);
        if !keys.is_empty() {
            return Err(ReloadRefused::RestartNeeded { keys });
        }
        let mut standing = broker.standing();
        let mut changes = Vec::new();
        let other_login = !same_login(&in_force.credentials, &fresh.credentials);
        let other_upstream =
            fresh.config.upstream != in_force.config.upstream || fresh.authorities != in_force.authorities;
        let mut proved = None;
        if other_login || other_upstream {
            let (authorities, credentials) = (fresh.authorities.clone(), fresh.credentials.clone());
            let (issuer, budget) = upstream(&fresh.config, authorities, credentials, &self.clock)
                .map_err(|error| ReloadRefused::Configuration(error.to_string()))?;
            standing.upstream = upstream_facts(&fresh.config);
            standing.budget = Arc::clone(&budget);
            broker.announce(Arc::clone(&standing.upstream));
            let settings = token_settings(&fresh.config);
            let proof = self.keeper.prove(Replacement { issuer, budget, settings }, deadline).await?;
            let what = if other_login { "the credentials were replaced" } else { "[upstream] was replaced" };
            changes.push(format!("{what}, proved by a login that gave token {}", proof.token()));
            proved = Some(proof);
            let listen = fresh.config.listen.clone();
            seen = self.believed();
            certificates = self.reading.of(move || read_certificates(&listen)).await?;
        }
        let notes = fresh.config.warnings.iter().chain(&loaded.warnings);
        let notes = notes
            .map(|warning| format!("{}: {warning}", self.file.display()))
            .chain(certificates.iter().flat_map(|prepared| self.about(prepared)))
            .chain(loaded.sources.iter().filter_map(|source| self.fixed(source)))
            .collect();
        let certificates = seen.into_iter().zip(certificates).collect();
        Ok(Ready { fresh, loaded, certificates, standing, proved, changes, notes })
    }

    /// What the ports show and believe now.
    fn believed(&self) -> Vec<Arc<Prepared>> {
        self.ports.iter().map(|port| port.current()).collect()
    }

    /// What can't fail, the new token last. Only the end of the process comes in between.
    async fn put_in_force(
        &self,
        broker: &Broker,
        in_force: &mut Material,
        ready: Ready,
    ) -> Result<Reloaded, ReloadRefused> {
        let Ready { fresh, loaded, certificates, mut standing, proved, mut changes, mut notes } = ready;
        for (port, (seen, prepared)) in self.ports.iter().zip(certificates) {
            let Some(replaced) = port.replace(&seen, prepared) else { continue };
            changes.push(replaced.said);
            let warnings = replaced.warnings.iter();
            notes.extend(warnings.map(|warning| format!("{}: {warning}", self.file.display())));
        }
        changes.extend(policy_changes(in_force.config.policy(), fresh.config.policy()));
        broker.replace_policy(fresh.config.policy().clone());
        let limits = [&in_force.config.limits, &fresh.config.limits].map(open_limits);
        if limits[0] != limits[1] {
            changes.push("the limits on connections and on callers' calls changed".to_owned());
            broker.replace_limits(limits[1]);
        }
        let secrets = [&in_force.credentials, &fresh.credentials].map(|set| set.callback_secret.as_ref());
        if !same(secrets[0], secrets[1]) {
            changes.push("the callback secret was replaced".to_owned());
            notes.push(
                "no login can prove a callback secret: verify a callback that B2BINPAY signed with the new one"
                    .to_owned(),
            );
        }
        if fresh.previous_until != in_force.previous_until {
            changes.push(match fresh.previous_until {
                Some(until) => format!("signs of the previous credentials are accepted until {until}"),
                None => "signs of the previous credentials are accepted no more".to_owned(),
            });
        }
        broker.replace_keys(sign_keys(&loaded));
        if fresh.config.token != in_force.config.token {
            changes.push("[token] changed, for the tokens to come".to_owned());
        }
        match proved {
            Some(proved) => {
                let replaced = proved.adopt().await.ok_or(ReloadRefused::ShuttingDown)?;
                standing.credentials.generation = replaced.generation;
            }
            None => self.keeper.adjust(token_settings(&fresh.config)),
        }
        standing.credentials.sources = source_facts(&loaded.sources);
        let generation = standing.credentials.generation;
        broker.stand(standing);
        broker.reopen_audit();
        *in_force = fresh;
        Ok(Reloaded { changes, notes, generation })
    }

    /// What to know of certificates that work.
    fn about(&self, prepared: &Prepared) -> Vec<String> {
        let now = self.clock.now().wall;
        let warnings =
            prepared.warnings().iter().map(|warning| format!("{}: {warning}", self.file.display()));
        let dates = prepared.facts().iter().filter_map(|certificate| {
            Some(format!("{}: {}", certificate.path.display(), certificate.complaint(now)?))
        });
        warnings.chain(dates).collect()
    }

    /// What to know of a credential that a reload can't have read anew.
    fn fixed(&self, source: &CredentialSource) -> Option<String> {
        let directory = self.environment.credentials_directory.as_deref()?;
        source.path.starts_with(directory).then(|| {
            format!(
                "{} is kept by the service manager, which gives a running service no new one: it is what it was at the start; \
                 restart the service to take over another",
                source.name
            )
        })
    }
}
