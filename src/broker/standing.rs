//! What the broker stands on, and what a reload may replace: the upstream with its budget, the credentials, the keys.

use std::{fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;

use crate::{budget::CallBudget, credentials::ApiVersion, keeper::HeldToken};

/// Where tokens are good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamFacts {
    /// Such as `https://v3.api.b2binpay.com`.
    pub base_url: String,
    /// Which generation of the API that is.
    pub api: ApiVersion,
}

/// Where the credentials come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialFacts {
    /// 1 from the start, one more with each replacement.
    pub generation: u64,
    /// Where each was read.
    pub sources: Vec<SourceFact>,
}

/// Where one credential was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFact {
    /// The configuration's name of it, such as `secret_file`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl fmt::Display for SourceFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.path.display())
    }
}

/// What is known of the upstream and of the credentials in force.
#[derive(Clone)]
pub struct Standing {
    /// Where tokens are good.
    pub upstream: Arc<UpstreamFacts>,
    /// What the keeper calls the upstream from; here for showing.
    pub budget: Arc<CallBudget>,
    /// Where the credentials come from.
    pub credentials: CredentialFacts,
}

/// The standing in force, and the one that may follow in a moment.
///
/// A token may come in hand before whoever replaces the credentials gets to tell the broker so. It says of itself of which
/// generation it is, and by that it is told where it is good.
pub(super) struct Standings {
    in_force: ArcSwap<Standing>,
    /// The upstream of the generation that a replacement under way would bring.
    next: ArcSwap<Option<(u64, Arc<UpstreamFacts>)>>,
}

impl Standings {
    pub(super) fn new(first: Standing) -> Self {
        Self { in_force: ArcSwap::from_pointee(first), next: ArcSwap::default() }
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Arc<Standing>> {
        self.in_force.load()
    }

    /// Says where tokens of the generation after the current one would be good.
    pub(super) fn announce(&self, upstream: Arc<UpstreamFacts>) {
        let generation = self.in_force.load().credentials.generation + 1;
        self.next.store(Arc::new(Some((generation, upstream))));
    }

    pub(super) fn replace(&self, standing: Standing) {
        self.in_force.store(Arc::new(standing));
    }

    /// Where this token is good.
    pub(super) fn upstream_of(&self, token: &HeldToken) -> Arc<UpstreamFacts> {
        match &**self.next.load() {
            Some((generation, upstream)) if *generation == token.generation => Arc::clone(upstream),
            _ => Arc::clone(&self.in_force.load().upstream),
        }
    }
}
