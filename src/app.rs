//! The daemon, put together: build → bound → run → drain.
//!
//! [`build`] makes everything and opens the sockets, [`Bound::run`] serves until it is told to stop and then drains. Every
//! task's end is awaited; an end that nobody asked for ends the process, since its supervisor starts a whole one.

mod reload;
mod supervision;

use std::{future::Future, sync::Arc, time::Duration};

use reload::{Material, Reloader, ReloaderParts};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::AuditSink,
    broker::{Broker, BrokerParts, CredentialFacts, OpenLimits, Reload, SourceFact, Standing, UpstreamFacts},
    budget::{BadLimit, CallBudget, CallLimit},
    clock::Clock,
    config::{
        Config, ConfigErrors, CredentialSource, Environment, Limits, Listen, LoadedCredentials, TlsFiles,
        Upstream,
    },
    credentials::Credentials,
    grpc::{
        self, BadDescriptors,
        listener::{CannotListen, Listener},
        tls::{self, Prepared, TlsMaterial, TlsProblem},
    },
    issuer::TokenIssuer,
    keeper::{self, KeeperSetup, TokenKeeper, TokenSettings},
    lockdown::Locks,
    security::SecurityEvent,
    service_manager::{HandedOver, Notice, ServiceManager},
    sign::SignKeys,
    state::{CallRecordFile, LockdownFlag},
    trail::{AuditFile, CannotAudit, Journal},
    upstream::{self, SetupError},
};

/// Of the drain deadline, this much is for those whose wait for a token is cut short: they get an answer, not silence.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often the previous credentials' end is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// How often the audit log is told what was counted for it. It decides by itself what of it is due.
const AUDIT_TICK: Duration = Duration::from_secs(1);

/// Why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum CannotStart {
    /// A file that the configuration names can't be used.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The upstream can't be called.
    #[error("{0}")]
    Upstream(#[from] SetupError),
    /// The call limit can't be kept.
    #[error("upstream.budget: {0}")]
    Budget(#[from] BadLimit),
    /// A socket can't be opened.
    #[error("{0}")]
    Listen(#[from] CannotListen),
    /// The audit log can't be written.
    #[error("{0}")]
    Audit(#[from] CannotAudit),
    /// Certificates, keys or lists of revoked ones can't be used.
    #[error("{0}")]
    Tls(#[from] TlsProblem),
    /// A mistake of the build's.
    #[error("{0}")]
    Descriptors(#[from] BadDescriptors),
}

impl CannotStart {
    /// Whether only another configuration helps. Everything else may pass by itself: an old process that still holds the
    /// socket, a directory that somebody is about to make, certificates that are not installed yet. A supervisor should
    /// try again.
    pub const fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_) | Self::Budget(_) | Self::Tls(_) => true,
            Self::Upstream(error) => match error {
                SetupError::CredentialsOfAnotherApi { .. }
                | SetupError::PlaintextThroughProxy
                | SetupError::BadAuthorities => true,
                SetupError::NoCryptoProvider | SetupError::Client { .. } => false,
            },
            Self::Audit(error) => matches!(error, CannotAudit::NotAFile(_)),
            Self::Listen(error) => {
                matches!(error, CannotListen::Unfit { .. } | CannotListen::NotHandedOver { .. })
            }
            Self::Descriptors(_) => false,
        }
    }
}

/// A task ended that never should.
#[derive(Debug, thiserror::Error)]
#[error("{task} ended, which it never should; the process ends so that its supervisor starts a whole one")]
pub struct TaskEnded {
    /// Which.
    task: &'static str,
}

/// A daemon whose sockets are open and which has not begun to serve.
pub struct Bound {
    broker: Arc<Broker>,
    keeper: TokenKeeper,
    clock: Arc<dyn Clock>,
    reload: Arc<dyn Reload>,
    manager: Option<Arc<dyn ServiceManager>>,
    listeners: Vec<Listener>,
    service: grpc::Service,
    limits: Limits,
    drain: CancellationToken,
    stop_keeper: CancellationToken,
    background: JoinSet<&'static str>,
}

/// Whoever issues tokens for `credentials`, and how often it may be asked: what `serve`, a reload and `check --online` share.
/// `authorities` are those of [`Config::read_authorities`].
pub fn upstream(
    config: &Config,
    authorities: Option<Vec<u8>>,
    credentials: Credentials,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<dyn TokenIssuer>, Arc<CallBudget>), CannotStart> {
    let configured = &config.upstream;
    let settings = upstream::Settings {
        api: configured.api,
        base_url: configured.base_url.clone(),
        ca_pem: authorities,
        proxy: configured.proxy.clone(),
        connect_timeout: configured.connect_timeout,
        request_timeout: configured.request_timeout,
    };
    let issuer = upstream::issuer(settings, credentials, Arc::clone(clock))?;
    let limit = CallLimit::new(configured.budget.requests, configured.budget.window)?;
    let record =
        CallRecordFile::new(&config.state_directory, configured.base_url.origin()).with_room_for(limit);
    Ok((issuer, CallBudget::new(limit, Arc::new(record), Arc::clone(clock))))
}

/// What may be open, by the configuration.
const fn open_limits(limits: &Limits) -> OpenLimits {
    OpenLimits {
        connections: limits.max_connections,
        connections_per_caller: limits.max_connections_per_caller,
        calls_per_caller: limits.max_calls_per_caller,
        largest_message: limits.max_message_bytes,
    }
}

/// Where the audit log goes.
fn trail(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn AuditSink>, CannotAudit> {
    Ok(match &config.audit_file {
        Some(path) => Arc::new(AuditFile::open(path, Arc::clone(clock))?),
        None => Arc::new(Journal::new(Arc::clone(clock))),
    })
}

/// Where the tokens of this configuration are good.
fn upstream_facts(config: &Config) -> Arc<UpstreamFacts> {
    let Upstream { base_url, api, .. } = &config.upstream;
    Arc::new(UpstreamFacts { base_url: base_url.as_str().to_owned(), api: *api })
}

/// What of this configuration is the keeper's.
fn token_settings(config: &Config) -> TokenSettings {
    TokenSettings {
        refresh_at: config.token.refresh_at,
        min_validity: config.token.min_validity,
        request_timeout: config.upstream.request_timeout,
    }
}

/// Where each credential was read.
fn source_facts(sources: &[CredentialSource]) -> Vec<SourceFact> {
    let fact =
        |source: &CredentialSource| SourceFact { name: source.name.to_owned(), path: source.path.clone() };
    sources.iter().map(fact).collect()
}

/// What signs are verified with.
fn sign_keys(loaded: &LoadedCredentials) -> SignKeys {
    SignKeys::new(&loaded.credentials, loaded.previous.as_ref().map(|(set, until)| (set, *until)))
}

/// The lockdown flag, and the locks to begin with.
fn locks(config: &Config, clock: &Arc<dyn Clock>) -> (LockdownFlag, Arc<Locks>) {
    let directory = &config.state_directory;
    if !directory.is_dir() {
        tracing::warn!(
            directory = %directory.display(),
            "the state directory is not there: if there was a lockdown, it is lost with it, and tokens are handed out"
        );
    }
    let flag = LockdownFlag::new(directory, &config.file);
    let locks = flag.read(clock.now().wall);
    for out in locks.all() {
        tracing::warn!(flag = %flag.path().display(), "{out}");
    }
    for (other, of) in flag.strangers() {
        let of = of.unwrap_or_else(|| "a configuration that it does not tell".to_owned());
        tracing::warn!(
            flag = %other.display(), of,
            "another lockdown flag is in the state directory, and is not obeyed here: it is of another instance, or of this one \
             under another path of its configuration; then lock again"
        );
    }
    (flag, Arc::new(locks))
}

/// Opens every socket and port; and what the ports show and believe.
fn listeners(
    config: &Config,
    mut handed_over: HandedOver,
    clock: &Arc<dyn Clock>,
) -> Result<(Vec<Listener>, Vec<Arc<TlsMaterial>>), CannotStart> {
    let mut listeners = Vec::new();
    let mut materials = Vec::new();
    let limits = &config.limits;
    let mut material = |tls: &TlsFiles| {
        let prepared = Prepared::read(tls)?;
        for warning in prepared.warnings() {
            tracing::warn!(file = %config.file.display(), "{warning}");
        }
        let material = TlsMaterial::new(prepared);
        materials.push(Arc::clone(&material));
        Ok::<_, TlsProblem>(material)
    };
    for listen in &config.listen {
        match listen {
            Listen::Unix { path, mode } => listeners.push(Listener::bind(path, *mode)?),
            Listen::Tcp { address, tls } => {
                listeners.push(Listener::bind_tls(*address, material(tls)?, limits, Arc::clone(clock))?);
            }
            Listen::Systemd { name, tls } => {
                let sockets = handed_over.take(name);
                if sockets.is_empty() {
                    let (name, given) = (name.clone(), handed_over.names());
                    return Err(CannotListen::NotHandedOver { name, given }.into());
                }
                let material = tls.as_deref().map(&mut material).transpose()?;
                for socket in sockets {
                    listeners.push(Listener::inherit(
                        socket,
                        name,
                        material.clone(),
                        limits,
                        Arc::clone(clock),
                    )?);
                }
            }
        }
    }
    for name in handed_over.names() {
        tracing::warn!(
            name,
            "the service manager handed over a socket that no [[listen]] names: nobody is served there, and callers who \
             connect wait in vain; write a [[listen]] with systemd = \"{name}\", or take its .socket unit away"
        );
    }
    Ok((listeners, materials))
}

/// Makes everything and opens the sockets, but for those that the service manager has `handed_over`. Nothing is asked of the
/// upstream before [`Bound::run`]. `environment` is where `loaded` was read, and will be again by a reload.
pub fn build(
    config: Config,
    environment: Environment,
    loaded: &LoadedCredentials,
    handed_over: HandedOver,
    clock: &Arc<dyn Clock>,
) -> Result<Bound, CannotStart> {
    let authorities = config.read_authorities()?;
    let trail = trail(&config, clock)?;
    let (issuer, budget) = upstream(&config, authorities.clone(), loaded.credentials.clone(), clock)?;
    if let Some(why) = CallRecordFile::passing_directory(&config.state_directory) {
        tracing::warn!(
            directory = %config.state_directory.display(),
            "the record of call times does not last, {why}: the first start after that makes one call, and then one by one"
        );
    }

    // Before anything is asked or served.
    let (flag, locks) = locks(&config, clock);

    let stop_keeper = CancellationToken::new();
    let setup = KeeperSetup {
        settings: token_settings(&config),
        issuer,
        budget: Arc::clone(&budget),
        clock: Arc::clone(clock),
        locks: Arc::clone(&locks),
        seed: fastrand::u64(..),
    };
    let (keeper, alarms, keeping) = keeper::run(setup, stop_keeper.clone().cancelled_owned());
    let broker = Broker::new(BrokerParts {
        keeper: keeper.clone(),
        policy: config.policy().clone(),
        keys: sign_keys(loaded),
        locks,
        lock_record: Arc::new(flag),
        clock: Arc::clone(clock),
        standing: Standing {
            upstream: upstream_facts(&config),
            budget,
            credentials: CredentialFacts { generation: 1, sources: source_facts(&loaded.sources) },
        },
        audit: trail,
        limits: open_limits(&config.limits),
    });

    let drain = CancellationToken::new();
    let health = grpc::health();
    let limits = config.limits.clone();
    let (listeners, materials) = listeners(&config, handed_over, clock)?;
    let reload: Arc<dyn Reload> = Arc::new(Reloader::new(ReloaderParts {
        environment,
        clock: Arc::clone(clock),
        broker: Arc::clone(&broker),
        keeper: keeper.clone(),
        drain: drain.clone(),
        ports: materials.clone(),
        in_force: Material::new(config, loaded, authorities),
    }));
    let service = grpc::service(
        Arc::clone(&broker),
        Arc::clone(&reload),
        materials.clone(),
        limits.max_message_bytes,
        health.clone(),
        drain.clone(),
    )?;

    let mut background = JoinSet::new();
    background.spawn(named("the keeper", keeping));
    let following = grpc::follow_readiness(Arc::clone(&broker), health, Arc::clone(clock), drain.clone());
    background.spawn(named("the health reporter", following));
    if !materials.is_empty() {
        // While calls may still finish, too: who is revoked then is ended.
        let following = tls::follow(materials, Arc::clone(clock), stop_keeper.clone());
        background.spawn(named("the watch over certificates", following));
    }
    background.spawn(named("the reader of alarms", note_alarms(Arc::clone(&broker), alarms)));
    background.spawn(named("the writer of the lockdown flag", Arc::clone(&broker).keep_lock_record()));
    background.spawn(named("the housekeeping", keep_house(Arc::clone(&broker))));
    background.spawn(named("the audit log", keep_audit(Arc::clone(&broker))));
    Ok(Bound {
        broker,
        keeper,
        clock: Arc::clone(clock),
        reload,
        manager: None,
        listeners,
        service,
        limits,
        drain,
        stop_keeper,
        background,
    })
}

impl Bound {
    /// Where it listens.
    pub fn sockets(&self) -> Vec<String> {
        self.listeners.iter().map(|listener| listener.place().to_owned()).collect()
    }

    /// Who reads everything again when it is asked to.
    pub fn reload(&self) -> Arc<dyn Reload> {
        Arc::clone(&self.reload)
    }

    /// The broker behind them.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Has `manager` told from now on whether it is ready, how it is, and that it is alive.
    pub fn report_to(&mut self, manager: Arc<dyn ServiceManager>) {
        let (broker, clock) = (Arc::clone(&self.broker), Arc::clone(&self.clock));
        let reporting = supervision::report(broker, Arc::clone(&manager), Arc::clone(&clock));
        self.background.spawn(named("the reporter to the service manager", reporting));
        if let Some(within) = manager.watchdog() {
            let feeding = supervision::feed(self.keeper.clone(), within, Arc::clone(&manager), clock);
            self.background.spawn(named("the watchdog's feeder", feeding));
        }
        self.manager = Some(manager);
    }

    /// Serves until `stop` ends, then lets the calls under way finish, within the drain deadline.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), TaskEnded> {
        self.broker.audit().started(env!("CARGO_PKG_VERSION"));
        let abort = CancellationToken::new();
        let mut serving = JoinSet::new();
        for listener in self.listeners.drain(..) {
            serving.spawn(listener.serve(
                self.service.clone(),
                self.limits.clone(),
                self.drain.clone(),
                abort.clone(),
            ));
        }

        tokio::select! {
            () = stop => {}
            Some(ended) = self.background.join_next() => {
                return Err(TaskEnded { task: ended.unwrap_or("a task") });
            }
            Some(_) = serving.join_next() => return Err(TaskEnded { task: "a listener" }),
        }

        tracing::info!(deadline = ?self.limits.drain_deadline, "stopping: calls under way may finish");
        if let Some(manager) = &self.manager {
            let status = Notice::status("stopping: calls under way may finish");
            let needed = self.limits.drain_deadline + LAST_WORDS * 2;
            supervision::tell(manager, vec![Notice::Stopping(needed), status]).await;
        }
        self.drain.cancel();
        let patience = self.limits.drain_deadline.saturating_sub(LAST_WORDS);
        if tokio::time::timeout(patience, all_ended(&mut serving)).await.is_err() {
            self.stop_keeper.cancel();
            if tokio::time::timeout(LAST_WORDS, all_ended(&mut serving)).await.is_err() {
                tracing::warn!("calls were cut off at the drain deadline");
                abort.cancel();
                all_ended(&mut serving).await;
            }
        }
        self.background.shutdown().await;
        self.broker.end_audit();
        tracing::info!("stopped");
        Ok(())
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn all_ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn note_alarms(broker: Arc<Broker>, mut alarms: mpsc::Receiver<SecurityEvent>) {
    while let Some(event) = alarms.recv().await {
        broker.note(event);
    }
}

async fn keep_house(broker: Arc<Broker>) {
    loop {
        broker.forget_expired_keys();
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

async fn keep_audit(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(AUDIT_TICK).await;
        broker.settle_audit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_no_fault_of_the_configuration() {
        let in_use = CannotListen::InUse("/run/broker.sock".into());
        let no_authorities = SetupError::Client { detail: "no certificates".into() };
        for passes in [CannotStart::from(in_use), no_authorities.into()] {
            assert!(!passes.is_configuration(), "{passes}");
        }
        for stays in [CannotStart::from(SetupError::PlaintextThroughProxy), SetupError::BadAuthorities.into()]
        {
            assert!(stays.is_configuration(), "{stays}");
        }
    }
}
