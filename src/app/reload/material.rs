//! What a reload reads, and how it is told from what was read before.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, TryAcquireError},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    broker::ReloadRefused,
    config::{Config, Environment, Listen, LoadedCredentials},
    credentials::Credentials,
    grpc::tls::Prepared,
    policy::{Policy, Rule},
    secret::{ExposeSecret, SecretString},
};

/// How long files may take to be read. Disks take milliseconds; one that takes longer than this has gone.
const TIME_TO_READ: Duration = Duration::from_secs(10);

/// What was read from files.
pub(in crate::app) struct Material {
    pub(in crate::app) config: Config,
    pub(super) credentials: Credentials,
    /// The authorities that the upstream's certificate is checked against, where the configuration names a file of them.
    pub(super) authorities: Option<Vec<u8>>,
    /// Until when signs of the credentials before are accepted.
    pub(super) previous_until: Option<Timestamp>,
}

/// Reads files with an end. Only one at a time reads: what hangs holds a thread for as long as it hangs, and there should be
/// no more of those with each reload.
pub(super) struct Reading {
    turn: Arc<Semaphore>,
    limit: Duration,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), limit: TIME_TO_READ }
    }

    /// What `read` returns, or that it takes too long. Then it goes on by itself, and its fruit is dropped.
    pub(super) async fn of<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReloadRefused> + Send + 'static,
    ) -> Result<T, ReloadRefused> {
        let turn = match Arc::clone(&self.turn).try_acquire_owned() {
            Ok(turn) => turn,
            Err(TryAcquireError::NoPermits) => return Err(ReloadRefused::StillReading),
            Err(TryAcquireError::Closed) => return Err(ReloadRefused::ShuttingDown),
        };
        let reading = spawn_blocking(move || {
            let _until_read = turn;
            read()
        });
        match timeout(self.limit, reading).await {
            Ok(read) => read.map_err(|_| ReloadRefused::ShuttingDown)?,
            Err(_) => Err(ReloadRefused::ReadTooSlowly { limit: self.limit }),
        }
    }
}

/// Reads all files. Takes as long as disks and name services take.
pub(super) fn read(
    file: &Path,
    environment: &Environment,
    now: Timestamp,
) -> Result<(Material, LoadedCredentials, Vec<Prepared>), ReloadRefused> {
    let config = Config::load(file).map_err(|errors| wrong(&errors))?;
    let loaded = config.read_credentials(environment, now).map_err(|errors| wrong(&errors))?;
    let authorities = config.read_authorities().map_err(|errors| wrong(&errors))?;
    let certificates = read_certificates(&config.listen)?;
    Ok((Material::new(config, &loaded, authorities), loaded, certificates))
}

/// Reads what the TCP ports show and believe, in their order.
pub(super) fn read_certificates(listen: &[Listen]) -> Result<Vec<Prepared>, ReloadRefused> {
    let ports = listen.iter().filter_map(Listen::tls).map(Prepared::read);
    ports.collect::<Result<_, _>>().map_err(|error| wrong(&error))
}

fn wrong(error: &dyn std::error::Error) -> ReloadRefused {
    ReloadRefused::Configuration(error.to_string())
}

impl Material {
    pub(in crate::app) fn new(
        config: Config,
        loaded: &LoadedCredentials,
        authorities: Option<Vec<u8>>,
    ) -> Self {
        Self {
            config,
            credentials: loaded.credentials.clone(),
            authorities,
            previous_until: loaded.previous.as_ref().map(|(_, until)| *until),
        }
    }
}

/// Whether both log in with the same.
pub(super) fn same_login(one: &Credentials, other: &Credentials) -> bool {
    one.api == other.api
        && same(Some(&one.key), Some(&other.key))
        && same(Some(&one.secret), Some(&other.secret))
}

/// Both were read from this host's files, so that how long this takes tells nobody anything.
pub(super) fn same(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(ExposeSecret::expose_secret) == other.map(ExposeSecret::expose_secret)
}

/// Whom the policy takes in, leaves out, and judges otherwise.
pub(super) fn policy_changes(old: &Policy, new: &Policy) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_given_up_and_nothing_else_is_read_before_it_is_through() {
        let reading = Reading { limit: Duration::from_millis(20), ..Reading::new() };
        let (mend, mended) = mpsc::channel();
        let hangs = reading.of(move || mended.recv().map_err(|_| ReloadRefused::ShuttingDown)).await;
        assert_eq!(hangs, Err(ReloadRefused::ReadTooSlowly { limit: reading.limit }));
        assert_eq!(reading.of(|| Ok(1)).await, Err(ReloadRefused::StillReading));
        mend.send(2).unwrap();
        drop(reading.turn.acquire().await.unwrap());
        let reading = Reading { limit: TIME_TO_READ, ..reading };
        assert_eq!(reading.of(|| Ok(3)).await, Ok(3));
        assert_eq!(reading.of(|| Ok(4)).await, Ok(4));
    }
}
