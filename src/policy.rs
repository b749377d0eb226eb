//! Who may do what.
//!
//! A [`Policy`] is a list of rules, each of which gives one name to the peers that its selector matches, and a set
//! of permissions to that name. What no rule allows is denied, health and reflection included.
//!
//! A peer has one name or none. Rules that overlap are an operator's mistake, and no order of precedence turns it into
//! something one can foresee: two rules with the same name or selector make no policy, and a peer that matches two
//! rules (through two of its groups, or as a user and through a group) is denied until somebody decides.

use std::{collections::HashMap, fmt, str::FromStr};

use crate::caller::{CallerName, Peer};

/// Something that a caller may be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Permission {
    /// Get a token.
    GetAccessToken,
    /// Be given each new token.
    WatchAccessToken,
    /// Have callbacks and token responses verified.
    VerifySign,
    /// Have an arbitrary message verified, which can be used to test guesses, and so is a permission of its own.
    VerifySignMessage,
    /// Ask whether the broker is healthy.
    Health,
    /// Ask which methods there are.
    Reflection,
    /// See the broker's state.
    AdminGetStatus,
}

impl Permission {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::GetAccessToken,
        Self::WatchAccessToken,
        Self::VerifySign,
        Self::VerifySignMessage,
        Self::Health,
        Self::Reflection,
        Self::AdminGetStatus,
    ];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GetAccessToken => "GetAccessToken",
            Self::WatchAccessToken => "WatchAccessToken",
            Self::VerifySign => "VerifySign",
            Self::VerifySignMessage => "VerifySign:message",
            Self::Health => "Health",
            Self::Reflection => "Reflection",
            Self::AdminGetStatus => "Admin:GetStatus",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no permission. It isn't repeated: it may be a secret in the wrong place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no such permission; there are {}", known_words())]
pub struct UnknownPermission;

fn known_words() -> String {
    Permissions::words().collect::<Vec<_>>().join(", ")
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(word: &str) -> Result<Self, UnknownPermission> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == word).ok_or(UnknownPermission)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u16);

impl Permissions {
    /// The word for all of `Admin:…`, those of later versions included.
    const ADMIN: &'static str = "Admin";

    /// The words that a configuration may use.
    pub fn words() -> impl Iterator<Item = &'static str> {
        Permission::ALL.into_iter().map(Permission::as_str).chain([Self::ADMIN])
    }

    /// What one word of a configuration stands for.
    pub fn of_word(word: &str) -> Result<Self, UnknownPermission> {
        if word == Self::ADMIN {
            let admin = |permission: &Permission| permission.as_str().starts_with("Admin:");
            return Ok(Permission::ALL.into_iter().filter(admin).collect());
        }
        word.parse().map(|permission: Permission| [permission].into_iter().collect())
    }

    /// Those of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `permission` is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Its members, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | permission.bit()))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What makes a peer a caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Selector {
    /// A process of this user.
    UnixUser(u32),
    /// A process that is in this group, be it its primary group or another.
    UnixGroup(u32),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixUser(uid) => write!(f, "uid {uid}"),
            Self::UnixGroup(gid) => write!(f, "gid {gid}"),
        }
    }
}

/// One caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name.
    pub name: CallerName,
    /// Who it is.
    pub selector: Selector,
    /// What it may do.
    pub allow: Permissions,
}

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

/// Why a call may not go on. The message is for the caller's developer, and says what to ask the operator for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denial {
    /// No rule names the peer.
    #[error(
        "this process ({peer}) is no caller that the broker knows: its configuration needs a [[caller]] with this user as unix_user, or one of the process's groups as unix_group"
    )]
    CallerUnknown {
        /// The peer.
        peer: Peer,
    },
    /// The peer's rule doesn't allow this.
    #[error(
        "caller {caller} may not use {permission}: its [[caller]] in the broker's configuration doesn't list that word under allow"
    )]
    MethodNotAllowed {
        /// Who called.
        caller: CallerName,
        /// What it lacks.
        permission: Permission,
    },
    /// The peer matches several rules.
    #[error(
        "this process ({peer}) matches more than one [[caller]] of the broker's configuration: {}. Which one it is must be decided there: take the user out of all but one of the groups, or remove all but one of these callers",
        list(callers)
    )]
    Ambiguous {
        /// The peer.
        peer: Peer,
        /// Whom it could be, and why.
        callers: Vec<(CallerName, Selector)>,
    },
}

fn list(callers: &[(CallerName, Selector)]) -> String {
    let each: Vec<_> = callers.iter().map(|(name, selector)| format!("{name} (by {selector})")).collect();
    each.join(" and ")
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
            let first = *by_selector.entry(rule.selector).or_insert(second);
            if first != second {
                conflicts.push(Conflict::SameSelector {
                    selector: rule.selector,
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

    /// The rule of the one caller that `peer` is.
    fn rule_of(&self, peer: &Peer) -> Result<&Rule, Denial> {
        match self.identify(peer) {
            Identity::Known(rule) => Ok(rule),
            Identity::Unknown => Err(Denial::CallerUnknown { peer: peer.clone() }),
            Identity::Ambiguous(rules) => Err(Denial::Ambiguous {
                peer: peer.clone(),
                callers: rules.into_iter().map(|rule| (rule.name.clone(), rule.selector)).collect(),
            }),
        }
    }

    /// The name of the one caller that `peer` is, whatever it may do.
    pub fn name_of(&self, peer: &Peer) -> Result<CallerName, Denial> {
        self.rule_of(peer).map(|rule| rule.name.clone())
    }

    /// Whether `peer` may do what needs `permission`.
    pub fn decide(&self, peer: &Peer, permission: Permission) -> Decision {
        match self.rule_of(peer) {
            Ok(rule) if rule.allow.contains(permission) => Decision::Allowed(rule.name.clone()),
            Ok(rule) => Decision::Denied(Denial::MethodNotAllowed { caller: rule.name.clone(), permission }),
            Err(denial) => Decision::Denied(denial),
        }
    }

    /// The rules that `peer` matches, each once.
    fn matching(&self, peer: &Peer) -> Vec<&Rule> {
        match peer {
            Peer::Unix { uid, gid, groups, pid: _ } => {
                let groups = groups.iter().chain([gid]).copied().map(Selector::UnixGroup);
                let mut found: Vec<usize> = groups
                    .chain([Selector::UnixUser(*uid)])
                    .filter_map(|selector| self.by_selector.get(&selector).copied())
                    .collect();
                found.sort_unstable();
                found.dedup();
                found.into_iter().map(|index| &self.rules[index]).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, selector: Selector, allow: &[Permission]) -> Rule {
        Rule { name: name.parse().unwrap(), selector, allow: allow.iter().copied().collect() }
    }

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer::Unix { uid, gid, groups: groups.to_vec(), pid: Some(4711) }
    }

    fn policy() -> Policy {
        Policy::new(vec![
            rule("payouts", Selector::UnixUser(1000), &[Permission::GetAccessToken]),
            rule("ops", Selector::UnixGroup(20), &[Permission::AdminGetStatus]),
            rule("hooks", Selector::UnixGroup(30), &[Permission::VerifySign]),
        ])
        .unwrap()
    }

    fn decide(peer: &Peer, permission: Permission) -> Decision {
        policy().decide(peer, permission)
    }

    fn allowed(name: &str) -> Decision {
        Decision::Allowed(name.parse().unwrap())
    }

    fn denial(peer: &Peer, permission: Permission) -> String {
        match decide(peer, permission) {
            Decision::Allowed(name) => panic!("allowed as {name}"),
            Decision::Denied(denial) => denial.to_string(),
        }
    }

    #[test]
    fn every_permission_is_written_as_it_is_read() {
        for permission in Permission::ALL {
            assert_eq!(permission.to_string().parse(), Ok(permission));
            assert_eq!(
                Permissions::of_word(permission.as_str()).unwrap().iter().collect::<Vec<_>>(),
                [permission]
            );
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones_and_not_repeated() {
        for word in ["getaccesstoken", "VerifySign:", "Admin:", "", "s3cr3t"] {
            let answer = Permissions::of_word(word).unwrap_err().to_string();
            assert_eq!(
                answer,
                "no such permission; there are GetAccessToken, WatchAccessToken, VerifySign, VerifySign:message, \
                 Health, Reflection, Admin:GetStatus, Admin"
            );
        }
    }

    #[test]
    fn admin_is_every_admin_permission_and_no_other() {
        let admin = Permissions::of_word("Admin").unwrap();
        assert_eq!(admin.iter().collect::<Vec<_>>(), [Permission::AdminGetStatus]);
        assert_eq!("Admin".parse::<Permission>(), Err(UnknownPermission));
    }

    #[test]
    fn verifying_a_callback_does_not_include_verifying_a_message() {
        let hooks = peer(7, 30, &[]);
        assert_eq!(decide(&hooks, Permission::VerifySign), allowed("hooks"));
        assert!(matches!(decide(&hooks, Permission::VerifySignMessage), Decision::Denied(_)));
    }

    #[test]
    fn an_empty_policy_denies_everything_to_everybody_root_included() {
        for permission in Permission::ALL {
            let decision = Policy::default().decide(&peer(0, 0, &[]), permission);
            assert!(matches!(decision, Decision::Denied(Denial::CallerUnknown { .. })), "{permission}");
        }
    }

    #[test]
    fn a_user_is_known_by_its_number_whatever_its_groups() {
        assert_eq!(decide(&peer(1000, 5, &[5, 6]), Permission::GetAccessToken), allowed("payouts"));
    }

    #[test]
    fn a_group_is_known_as_the_primary_and_as_a_supplementary_one() {
        for ops in [peer(7, 20, &[]), peer(7, 8, &[20]), peer(7, 20, &[20, 21])] {
            assert_eq!(decide(&ops, Permission::AdminGetStatus), allowed("ops"), "{ops}");
        }
    }

    #[test]
    fn a_user_s_number_is_not_a_group_s() {
        assert_eq!(policy().identify(&peer(20, 1000, &[])), Identity::Unknown);
    }

    #[test]
    fn a_stranger_is_told_who_it_is_taken_for() {
        assert_eq!(
            denial(&peer(1001, 8, &[9]), Permission::Health),
            "this process (uid 1001, gid 8, pid 4711) is no caller that the broker knows: its configuration needs a \
             [[caller]] with this user as unix_user, or one of the process's groups as unix_group"
        );
    }

    #[test]
    fn a_caller_is_told_what_it_lacks() {
        assert_eq!(
            denial(&peer(1000, 8, &[]), Permission::VerifySignMessage),
            "caller payouts may not use VerifySign:message: its [[caller]] in the broker's configuration doesn't list \
             that word under allow"
        );
    }

    #[test]
    fn a_peer_that_could_be_two_callers_is_neither() {
        let user_and_group = peer(1000, 8, &[20]);
        assert_eq!(
            denial(&user_and_group, Permission::GetAccessToken),
            "this process (uid 1000, gid 8, pid 4711) matches more than one [[caller]] of the broker's configuration: \
             ops (by gid 20) and payouts (by uid 1000). Which one it is must be decided there: take the user out of \
             all but one of the groups, or remove all but one of these callers"
        );
        let two_groups = peer(7, 30, &[20]);
        assert!(
            denial(&two_groups, Permission::VerifySign).contains("hooks (by gid 30) and ops (by gid 20)")
        );
    }

    #[test]
    fn rules_that_overlap_make_no_policy_and_all_overlaps_are_told() {
        let conflicts = Policy::new(vec![
            rule("a", Selector::UnixUser(1), &[]),
            rule("b", Selector::UnixUser(1), &[]),
            rule("a", Selector::UnixGroup(1), &[]),
        ])
        .unwrap_err();
        let told: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "the callers a and b are both uid 1: a peer can be only one of them, remove one",
                "two callers have the name a (numbers 1 and 3): give each its own",
            ]
        );
    }
}
