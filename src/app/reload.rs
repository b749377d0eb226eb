//! Everything is read again while the broker runs: prepared first, and put in force only when nothing can go wrong any more.
//!
//! The order: read and check all files; refuse what a reload can't take over; prove credentials that are other than before by
//! one login, which is the last thing that can fail; then swap. A login is made only where the upstream or the credentials
//! differ, so that a change of policy costs no call.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use jiff::Timestamp;
use tokio::{sync::Mutex, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{open_limits, sign_keys, source_facts, token_settings, upstream, upstream_facts};
use crate::{
    broker::{Broker, Reload, ReloadRefused, Reloaded, Reloading, Requester},
    clock::Clock,
    config::{Config, CredentialSource, Environment, Listen, LoadedCredentials},
    credentials::Credentials,
    grpc::tls::{Prepared, TlsMaterial},
    keeper::{Replacement, TokenKeeper},
    policy::{Policy, Rule},
    secret::{ExposeSecret, SecretString},
};

/// What was read from files.
pub(super) struct Material {
    pub(super) config: Config,
    pub(super) credentials: Credentials,
    /// The authorities that the upstream's certificate is checked against, where the configuration names a file of them.
    pub(super) authorities: Option<Vec<u8>>,
    /// Until when signs of the credentials before are accepted.
    pub(super) previous_until: Option<Timestamp>,
}

/// Reads everything again.
pub(super) struct Reloader {
    shared: Arc<Shared>,
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
    in_force: Mutex<Material>,
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
                in_force: Mutex::new(parts.in_force),
            }),
        }
    }
}

impl Reload for Reloader {
    fn reload(&self, requester: Requester) -> Reloading<'_> {
        let shared = Arc::clone(&self.shared);
        // A task of its own: a client that hangs up must not leave half of it in force.
        let reloading = tokio::spawn(async move { shared.reload(&requester).await });
        Box::pin(async move { reloading.await.unwrap_or(Err(ReloadRefused::ShuttingDown)) })
    }
}

impl Shared {
    async fn reload(&self, requester: &Requester) -> Result<Reloaded, ReloadRefused> {
        let broker = self.broker.upgrade().ok_or(ReloadRefused::ShuttingDown)?;
        let mut in_force = self.in_force.lock().await;
        let outcome = tokio::select! {
            outcome = self.replace(&broker, &mut in_force) => outcome,
            () = self.drain.cancelled() => Err(ReloadRefused::ShuttingDown),
        };
        match &outcome {
            Ok(Reloaded { changes, notes, generation }) => {
                tracing::info!(by = %requester, generation, "reloaded: {}", changes.join("; "));
                for note in notes {
                    tracing::warn!("{note}");
                }
            }
            Err(refused) => tracing::error!(by = %requester, "reload refused: {refused}"),
        }
        broker.note_reload(requester, &outcome);
        outcome
    }

    async fn replace(&self, broker: &Broker, in_force: &mut Material) -> Result<Reloaded, ReloadRefused> {
        let (file, environment, now) = (self.file.clone(), self.environment.clone(), self.clock.now().wall);
        let read = spawn_blocking(move || read(&file, &environment, now));
        let (fresh, loaded, certificates) = read.await.map_err(|_| ReloadRefused::ShuttingDown)??;
        let keys = in_force.config.needs_restart_for(&fresh.config);
        if !keys.is_empty() {
            return Err(ReloadRefused::RestartNeeded { keys });
        }

        let mut changes = Vec::new();
        let mut notes: Vec<_> = fresh
            .config
            .warnings
            .iter()
            .chain(&loaded.warnings)
            .map(|warning| format!("{}: {warning}", self.file.display()))
            .chain(certificates.iter().flat_map(|prepared| self.about(prepared)))
            .chain(loaded.sources.iter().filter_map(|source| self.fixed(source)))
            .collect();
        let mut standing = broker.standing();
        let other_login = !same_login(&in_force.credentials, &fresh.credentials);
        let other_upstream =
            fresh.config.upstream != in_force.config.upstream || fresh.authorities != in_force.authorities;
        if other_login || other_upstream {
            let (authorities, credentials) = (fresh.authorities.clone(), fresh.credentials.clone());
            let (issuer, budget) = upstream(&fresh.config, authorities, credentials, &self.clock)
                .map_err(|error| ReloadRefused::Configuration(error.to_string()))?;
            standing.upstream = upstream_facts(&fresh.config);
            standing.budget = Arc::clone(&budget);
            broker.announce(Arc::clone(&standing.upstream));
            let settings = token_settings(&fresh.config);
            // The last thing that can fail.
            let replaced = self.keeper.replace(Replacement { issuer, budget, settings }, None).await?;
            standing.credentials.generation = replaced.generation;
            let what = if other_login { "the credentials were replaced" } else { "[upstream] was replaced" };
            changes.push(format!("{what}, proved by a login that gave token {}", replaced.token));
        } else if fresh.config.token != in_force.config.token {
            self.keeper.adjust(token_settings(&fresh.config));
        }

        let callback_secrets =
            [&in_force.credentials, &fresh.credentials].map(|set| set.callback_secret.as_ref());
        if !same(callback_secrets[0], callback_secrets[1]) {
            changes.push("the callback secret was replaced".to_owned());
            notes.push(
                "no login can prove a callback secret: verify a callback that B2BINPAY signed with the new one".to_owned(),
            );
        }
        if fresh.previous_until != in_force.previous_until {
            changes.push(match fresh.previous_until {
                Some(until) => format!("signs of the previous credentials are accepted until {until}"),
                None => "signs of the previous credentials are accepted no more".to_owned(),
            });
        }
        if fresh.config.token != in_force.config.token {
            changes.push("[token] changed, for the tokens to come".to_owned());
        }
        changes.extend(policy_changes(in_force.config.policy(), fresh.config.policy()));
        standing.credentials.sources = source_facts(&loaded.sources);
        let generation = standing.credentials.generation;
        broker.stand(standing, sign_keys(&loaded));
        broker.replace_policy(fresh.config.policy().clone());
        for (port, prepared) in self.ports.iter().zip(certificates) {
            if let Some(what) = port.replace(prepared) {
                changes.push(what);
            }
        }
        let limits = [&in_force.config.limits, &fresh.config.limits].map(open_limits);
        if limits[0] != limits[1] {
            changes.push("the limits on connections and on callers' calls changed".to_owned());
            broker.replace_limits(limits[1]);
        }
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

/// Reads all files. Takes as long as disks and name services take.
fn read(
    file: &Path,
    environment: &Environment,
    now: Timestamp,
) -> Result<(Material, LoadedCredentials, Vec<Prepared>), ReloadRefused> {
    let wrong = |error: &dyn std::error::Error| ReloadRefused::Configuration(error.to_string());
    let config = Config::load(file).map_err(|errors| wrong(&errors))?;
    let loaded = config.read_credentials(environment, now).map_err(|errors| wrong(&errors))?;
    let authorities = config.read_authorities().map_err(|errors| wrong(&errors))?;
    let ports = config.listen.iter().filter_map(|listen| match listen {
        Listen::Tcp { tls, .. } => Some(Prepared::read(tls)),
        Listen::Unix { .. } => None,
    });
    let certificates = ports.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    Ok((Material::new(config, &loaded, authorities), loaded, certificates))
}

impl Material {
    pub(super) fn new(config: Config, loaded: &LoadedCredentials, authorities: Option<Vec<u8>>) -> Self {
        Self {
            config,
            credentials: loaded.credentials.clone(),
            authorities,
            previous_until: loaded.previous.as_ref().map(|(_, until)| *until),
        }
    }
}

/// Whether both log in with the same.
fn same_login(one: &Credentials, other: &Credentials) -> bool {
    one.api == other.api
        && same(Some(&one.key), Some(&other.key))
        && same(Some(&one.secret), Some(&other.secret))
}

/// Both were read from this host's files, so that how long this takes tells nobody anything.
fn same(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(ExposeSecret::expose_secret) == other.map(ExposeSecret::expose_secret)
}

/// Whom the policy takes in, leaves out, and judges otherwise.
fn policy_changes(old: &Policy, new: &Policy) -> Vec<String> {
    let names = |policy: &Policy, differs: &dyn Fn(&Rule) -> bool| {
        let names: Vec<_> =
            policy.rules().iter().filter(|rule| differs(rule)).map(|rule| rule.name.to_string()).collect();
        names.join(", ")
    };
    let twin =
        |policy: &Policy, rule: &Rule| policy.rules().iter().find(|other| other.name == rule.name).cloned();
    [
        ("callers added", names(new, &|rule| twin(old, rule).is_none())),
        ("callers removed", names(old, &|rule| twin(new, rule).is_none())),
        ("callers changed", names(new, &|rule| twin(old, rule).is_some_and(|before| before != *rule))),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what}: {names}"))
    .collect()
}
