//! A broker for tests of what stands in front of it: nothing gives it a token.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    audit::{AuditSink, Record, SinkState},
    broker::{
        Broker, BrokerParts, CredentialFacts, OpenLimits, Reload, ReloadRefused, Reloading, Requester,
        Standing, UpstreamFacts,
    },
    budget::{CallBudget, CallLimit, CallRecord, History, PastCall, RecordUnusable},
    caller::Peer,
    clock::{BootInstant, Clock, Now, SystemClock},
    credentials::{ApiVersion, Credentials},
    issuer::{Answer, TokenIssuer},
    keeper::{self, KeeperSetup, TokenSettings},
    lockdown::{LockRecord, Locks, NotWritten},
    policy::{Permissions, Policy, Rule, Selector},
    sign::SignKeys,
    token::RefreshToken,
};

struct Silent;

impl TokenIssuer for Silent {
    fn fetch_token(&self, _: Duration) -> Answer<'_> {
        Box::pin(std::future::pending())
    }

    fn refresh_token<'a>(&'a self, _: &'a RefreshToken, _: Duration) -> Answer<'a> {
        Box::pin(std::future::pending())
    }
}

struct Forgetful;

impl CallRecord for Forgetful {
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable> {
        decide(History::Missing, clock.now());
        Ok(())
    }
}

struct Unread;

impl AuditSink for Unread {
    fn write(&self, _: Record) {}
    fn reopen(&self) {}
    fn flush(&self) {}
    fn state(&self) -> SinkState {
        SinkState::default()
    }
}

impl LockRecord for Forgetful {
    fn write(&self, _: &Locks) -> Result<(), NotWritten> {
        Ok(())
    }
}

/// The user whom the broker knows as `known`, with every permission.
pub(super) const KNOWN: u32 = 1000;

/// A process of this user.
pub(super) fn peer(uid: u32) -> Arc<Peer> {
    Arc::new(Peer::Unix { uid, gid: 1, groups: Vec::new(), pid: None, unit: None })
}

/// A broker whose keeper runs in the background, for as long as the test's runtime.
pub(super) fn broker() -> Arc<Broker> {
    broker_with(Arc::new(Forgetful))
}

/// The same, whose locks are written down here.
pub(super) fn broker_with(lock_record: Arc<dyn LockRecord>) -> Arc<Broker> {
    let clock = Arc::new(SystemClock);
    let budget = CallBudget::new(CallLimit::B2BINPAY, Arc::new(Forgetful), clock.clone());
    let setup = KeeperSetup {
        settings: TokenSettings {
            refresh_at: 0.67,
            min_validity: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
        },
        issuer: Arc::new(Silent),
        budget: Arc::clone(&budget),
        clock: clock.clone(),
        locks: Arc::default(),
        seed: 0,
    };
    let (keeper, _, keeping) = keeper::run(setup, CancellationToken::new().cancelled_owned());
    tokio::spawn(keeping);
    let credentials = Credentials {
        api: ApiVersion::V3,
        key: "key".into(),
        secret: "secret".into(),
        callback_secret: Some("callback secret".into()),
    };
    let allow = Permissions::words().map(|word| Permissions::of_word(word).unwrap());
    let rule = Rule::new(
        "known".parse().unwrap(),
        Selector::UnixUser(KNOWN),
        allow.fold(Permissions::default(), Permissions::union),
    );
    Broker::new(BrokerParts {
        keeper,
        policy: Policy::new(vec![rule]).unwrap(),
        keys: SignKeys::new(&credentials, None),
        locks: Arc::default(),
        lock_record,
        clock,
        standing: Standing {
            upstream: Arc::new(UpstreamFacts {
                base_url: "https://upstream.invalid".into(),
                api: ApiVersion::V3,
            }),
            budget,
            credentials: CredentialFacts { generation: 1, sources: Vec::new() },
        },
        audit: Arc::new(Unread),
        limits: OpenLimits {
            connections: 16,
            connections_per_caller: 16,
            calls_per_caller: 16,
            largest_message: 64 * 1024,
        },
    })
}

/// Where nothing can be reloaded.
pub(super) struct NoReload;

impl Reload for NoReload {
    fn reload(&self, _: Requester, _: Option<BootInstant>) -> Reloading<'_> {
        Box::pin(std::future::ready(Err(ReloadRefused::ShuttingDown)))
    }
}
