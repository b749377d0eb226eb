//! Who may do what.
//!
//! A [`Policy`] is a list of rules, each of which gives one name to the peers that its selector matches, and a set
//! of permissions to that name. What no rule allows is denied, health and reflection included.
//!
//! A peer has one name or none. Rules that overlap are an operator's mistake, and no order of precedence turns it into
//! something one can foresee: two rules with the same name or selector make no policy, and a peer that matches two
//! rules (through two of its groups, or as a user and through a group) is denied until somebody decides.

mod denial;
mod permission;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use denial::Denial;
pub use permission::{Permission, Permissions, UnknownPermission};
pub use rule::{NotARate, Rate, Rule, Selector};

use crate::caller::{CallerName, Peer};

/// Two rules that can't stand beside each other. `first` and `second` are their places in the list, from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Conflict {
    /// Both have the same name.
    #[error("two callers have the name {name} (numbers {} and {}): give each its own", first + 1, second + 1)]
    SameName {
        /// The name.
        name: CallerName,
        /// The earlier rule.
        first: usize,
        /// The later rule.
        second: usize,
    },
    /// Both select the same peers.
    #[error(
        "the callers {first_name} and {second_name} are both {selector}: a peer can be only one of them, remove one"
    )]
    SameSelector {
        /// What they select.
        selector: Selector,
        /// The earlier rule's name.
        first_name: CallerName,
        /// The later rule's name.
        second_name: CallerName,
        /// The earlier rule.
        first: usize,
        /// The later rule.
        second: usize,
    },
}

/// Whom a peer is taken for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity<'a> {
    /// The caller of this rule.
    Known(&'a Rule),
    /// Nobody that a rule names.
    Unknown,
    /// More than one.
    Ambiguous(Vec<&'a Rule>),
}

/// Whether a call may go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may, in this caller's name.
    Allowed(CallerName),
    /// It may not.
    Denied(Denial),
}

/// The rules, ready to be asked: a lookup costs as much as the peer has groups, however many rules there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    by_selector: HashMap<Selector, usize>,
}

impl Policy {
    /// The policy of these rules, or everything that keeps them from being one.
    pub fn new(rules: Vec<Rule>) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let mut by_name = HashMap::new();
        let mut by_selector = HashMap::new();
        for (second, rule) in rules.iter().enumerate() {
            let first = *by_name.entry(&rule.name).or_insert(second);
            if first != second {
                conflicts.push(Conflict::SameName { name: rule.name.clone(), first, second });
            }
            let first = *by_selector.entry(rule.selector.clone()).or_insert(second);
            if first != second {
                conflicts.push(Conflict::SameSelector {
                    selector: rule.selector.clone(),
                    first_name: rules[first].name.clone(),
                    second_name: rule.name.clone(),
                    first,
                    second,
                });
            }
        }
        if conflicts.is_empty() { Ok(Self { rules, by_selector }) } else { Err(conflicts) }
    }

    /// All callers, in the order of the configuration.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whom `peer` is taken for.
    pub fn identify(&self, peer: &Peer) -> Identity<'_> {
        let mut matching = self.matching(peer);
        match matching.as_slice() {
            [] => Identity::Unknown,
            [rule] => Identity::Known(rule),
            _ => {
                matching.sort_by(|a, b| a.name.cmp(&b.name));
                Identity::Ambiguous(matching)
            }
        }
    }

    /// The rule of the one caller that `peer` is, if it may call from where it is.
    pub fn admit(&self, peer: &Peer) -> Result<&Rule, Denial> {
        let rule = match self.identify(peer) {
            Identity::Known(rule) => rule,
            Identity::Unknown => return Err(Denial::CallerUnknown { peer: peer.clone() }),
            Identity::Ambiguous(rules) => {
                let callers = rules.into_iter().map(|rule| (rule.name.clone(), rule.selector.clone()));
                return Err(Denial::Ambiguous { peer: peer.clone(), callers: callers.collect() });
            }
        };
        match peer {
            Peer::Tls { address, .. } if !rule.lets_in_from(address.ip()) => Err(Denial::NetworkNotAllowed {
                caller: rule.name.clone(),
                address: address.ip().to_canonical(),
            }),
            Peer::Tls { .. } | Peer::Unix { .. } => Ok(rule),
        }
    }

    /// Whether `peer` may do what needs `permission`.
    pub fn decide(&self, peer: &Peer, permission: Permission) -> Decision {
        match self.admit(peer) {
            Ok(rule) if rule.allow.contains(permission) => Decision::Allowed(rule.name.clone()),
            Ok(rule) => Decision::Denied(Denial::MethodNotAllowed { caller: rule.name.clone(), permission }),
            Err(denial) => Decision::Denied(denial),
        }
    }

    /// The rules that `peer` matches, each once.
    fn matching(&self, peer: &Peer) -> Vec<&Rule> {
        let named = |selector: &Selector| self.by_selector.get(selector).copied();
        let mut found: Vec<usize> = match peer {
            Peer::Unix { uid, gid, groups, unit, pid: _ } => {
                let groups = groups.iter().chain([gid]).copied().map(Selector::UnixGroup);
                let unit = unit.clone().map(Selector::SystemdUnit);
                groups.chain([Selector::UnixUser(*uid)]).chain(unit).filter_map(|it| named(&it)).collect()
            }
            Peer::Tls { name: Ok(name), .. } => {
                named(&Selector::Certificate(name.clone())).into_iter().collect()
            }
            Peer::Tls { name: Err(_), .. } => Vec::new(),
        };
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|index| &self.rules[index]).collect()
    }
}
