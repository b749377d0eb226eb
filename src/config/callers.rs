//! `[[caller]]`: from names to the numbers that the kernel knows, and to a policy.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::CString,
    fmt, io,
    net::IpAddr,
    str::FromStr,
};

use ipnet::IpNet;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::{
    errors::{Findings, named, nearest},
    section::{Section, Value},
};
use crate::{
    caller::{CallerName, CertifiedName},
    policy::{Conflict, Permissions, Policy, Rule, Selector},
};

/// The host's users and groups.
pub trait Accounts {
    /// The number of the user with this name, if there is one.
    fn user(&self, name: &str) -> io::Result<Option<u32>>;
    /// The number of the group with this name, if there is one.
    fn group(&self, name: &str) -> io::Result<Option<u32>>;
    /// All groups of the user with this number, its primary one included. None for a user that the host doesn't know.
    fn groups_of(&self, uid: u32) -> Vec<u32>;
    /// The users that are in the group with this number by its own list, which leaves out those whose primary group it is.
    fn members(&self, gid: u32) -> Vec<u32>;
}

/// Those that the system's name service knows.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn user(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    }

    fn groups_of(&self, uid: u32) -> Vec<u32> {
        let groups = || {
            let user = User::from_uid(Uid::from_raw(uid)).ok()??;
            getgrouplist(&CString::new(user.name).ok()?, user.gid).ok()
        };
        groups().unwrap_or_default().into_iter().map(Gid::as_raw).collect()
    }

    fn members(&self, gid: u32) -> Vec<u32> {
        let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        let members = group.map(|group| group.mem).unwrap_or_default();
        members.iter().filter_map(|name| self.user(name).ok().flatten()).collect()
    }
}

/// The number that the kernel shows for users and groups that don't exist in this user namespace.
const UNMAPPED: u32 = 65_534;

/// The policy of these callers. Where something is wrong, which is reported, it is the empty one: nobody may anything.
pub(super) fn read(sections: &[Section<'_>], accounts: &dyn Accounts, findings: &Findings<'_>) -> Policy {
    if sections.is_empty() {
        findings.odd(0, "there is no [[caller]]: every call will be refused");
    }
    let (rules, places): (Vec<_>, Vec<_>) =
        sections.iter().filter_map(|section| Some((rule(section, accounts, findings)?, section))).unzip();
    report_members(&rules, &places, accounts, findings);
    Policy::new(rules).unwrap_or_else(|conflicts| {
        for conflict in &conflicts {
            report(conflict, &places, findings);
        }
        Policy::default()
    })
}

/// Reports users of this host who would be two callers: by their own number and through a group, or through two groups. The
/// guard would deny them; it also does so for users whom the name service doesn't list.
fn report_members(rules: &[Rule], places: &[&Section<'_>], accounts: &dyn Accounts, findings: &Findings<'_>) {
    let mut by_group = HashMap::new();
    let mut users = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        match rule.selector {
            Selector::UnixGroup(gid) => {
                by_group.entry(gid).or_insert(index);
                users.extend(accounts.members(gid));
            }
            Selector::UnixUser(uid) => drop(users.insert(uid)),
            Selector::SystemdUnit(_) | Selector::Certificate(_) => {}
        }
    }
    if by_group.is_empty() {
        return;
    }
    let mut told = BTreeSet::new();
    for uid in users {
        let own = rules.iter().position(|rule| rule.selector == Selector::UnixUser(uid));
        let through_groups =
            accounts.groups_of(uid).into_iter().filter_map(|gid| by_group.get(&gid).copied());
        let matching: BTreeSet<_> = own.into_iter().chain(through_groups).collect();
        let mut matching = matching.into_iter();
        let (Some(first), Some(second)) = (matching.next(), matching.next()) else { continue };
        if told.insert((first, second)) {
            let line = findings.position(places[first].offset()).line;
            findings.wrong(
                places[second].offset(),
                format!(
                    "uid {uid} would be this caller{} ({}) and also the caller{} ({}) of line {line}: take the user out of the \
                     group, or remove one of the two callers",
                    named(rules[second].name.as_str()),
                    rules[second].selector,
                    named(rules[first].name.as_str()),
                    rules[first].selector,
                ),
            );
        }
    }
}

fn rule(section: &Section<'_>, accounts: &dyn Accounts, findings: &Findings<'_>) -> Option<Rule> {
    // All are looked at before the first that is missing ends it.
    let name = name(section);
    let selector = selector(section, accounts);
    let allow = allow(section, findings);
    let networks = networks(section, selector.as_ref(), findings);
    let rate = section.text("rate").map(|(text, value)| {
        text.parse().map_err(|error| value.wrong(format!("can't be read: {error}"))).ok()
    });
    Some(Rule {
        networks: networks?,
        rate: rate.map_or(Some(None), |rate| rate.map(Some))?,
        ..Rule::new(name?, selector?, allow?)
    })
}

fn name(section: &Section<'_>) -> Option<CallerName> {
    let (text, value) = section.text("name")?;
    text.parse().map_err(|error| value.wrong(format!("can't be used: {error}"))).ok()
}

/// The keys that say who a caller is.
const SELECTORS: [&str; 5] = ["unix_user", "unix_group", "systemd_unit", "spiffe_id", "dns_name"];

fn selector(section: &Section<'_>, accounts: &dyn Accounts) -> Option<Selector> {
    let mut written = SELECTORS.into_iter().filter(|key| section.get(key).is_some());
    let Some(key) = written.next() else {
        section
            .wrong(format!("this caller has none of {}; exactly one says who it is", SELECTORS.join(", ")));
        return None;
    };
    let mut alone = true;
    for second in written.filter_map(|second| section.get(second)) {
        second.wrong(format!("stands beside caller.{key}: a caller is one or the other, write two callers"));
        alone = false;
    }
    let (text, value) = section.text(key).filter(|_| alone)?;
    match key {
        "unix_user" => account("user", text, &value, accounts).map(Selector::UnixUser),
        "unix_group" => account("group", text, &value, accounts).map(Selector::UnixGroup),
        "systemd_unit" => named_by(text, &value).map(Selector::SystemdUnit),
        "spiffe_id" => named_by(text, &value).map(|id| Selector::Certificate(CertifiedName::Spiffe(id))),
        _ => named_by(text, &value).map(|name| Selector::Certificate(CertifiedName::Dns(name))),
    }
}

fn named_by<N: FromStr<Err: fmt::Display>>(text: &str, value: &Value<'_>) -> Option<N> {
    text.parse().map_err(|error| value.wrong(format!("can't be used: {error}"))).ok()
}

/// The number of a user or group, by its name or as it is.
fn account(sort: &str, text: &str, value: &Value<'_>, accounts: &dyn Accounts) -> Option<u32> {
    let number = if text.bytes().all(|b| b.is_ascii_digit()) {
        // The greatest number means "no user" to the kernel.
        text.parse().ok().filter(|number| *number != u32::MAX).or_else(|| {
            value.wrong(format!("is no number that a {sort} can have"));
            None
        })
    } else {
        let found = if sort == "user" { accounts.user(text) } else { accounts.group(text) };
        match found {
            Ok(Some(number)) => Some(number),
            Ok(None) => {
                let named = named(text);
                value.wrong(format!(
                    "names a {sort}{named} that this host doesn't know; create it first, or write its number"
                ));
                None
            }
            Err(error) => {
                value.wrong(format!("can't be looked up: {error}"));
                None
            }
        }
    }?;
    if number == UNMAPPED {
        value.odd(format!(
            "is {UNMAPPED}, which is also what the kernel shows for every {sort} of another user namespace: such processes \
             are let in too"
        ));
    }
    Some(number)
}

fn networks(
    section: &Section<'_>,
    selector: Option<&Selector>,
    findings: &Findings<'_>,
) -> Option<Vec<IpNet>> {
    let Some(value) = section.get("networks") else { return Some(Vec::new()) };
    if selector.is_some_and(|selector| !selector.is_remote()) {
        value.wrong("is for callers over TCP, by spiffe_id or dns_name: take it out, a process of this host has no address");
        return None;
    }
    let words = value.words();
    let mut networks = Vec::new();
    for (word, offset) in &words {
        // One address is the network that it is alone in.
        let network = word.parse().or_else(|_| word.parse::<IpAddr>().map(IpNet::from)).ok();
        match network.map(|network: IpNet| (network, network.trunc())) {
            Some((network, whole)) if network == whole => networks.push(network),
            Some((_, whole)) => {
                let message = format!("caller.networks: the address has bits beyond the length of its prefix; write {whole}");
                findings.wrong(*offset, message);
            }
            None => findings.wrong(*offset, "caller.networks: a network is an address and a length, such as \"10.1.0.0/16\" or \"2001:db8::/32\""),
        }
    }
    (!words.is_empty() && networks.len() == words.len()).then_some(networks)
}

fn allow(section: &Section<'_>, findings: &Findings<'_>) -> Option<Permissions> {
    let words = section.get("allow")?.words();
    let mut allowed = Permissions::default();
    for (word, offset) in &words {
        match Permissions::of_word(word) {
            Ok(permissions) => allowed = allowed.union(permissions),
            Err(unknown) => {
                let likely = nearest(word, Permissions::words());
                let hint = likely.map(|likely| format!("; did you mean {likely}?")).unwrap_or_default();
                findings.wrong(*offset, format!("caller.allow: {unknown}{hint}"));
            }
        }
    }
    (!words.is_empty()).then_some(allowed)
}

fn report(conflict: &Conflict, places: &[&Section<'_>], findings: &Findings<'_>) {
    let (first, second, message) = match conflict {
        Conflict::SameName { name, first, second } => (
            first,
            second,
            format!("this caller's name{} is already that of the caller", named(name.as_str())),
        ),
        Conflict::SameSelector { selector, first_name, second_name, first, second } => (
            first,
            second,
            format!(
                "this caller{} is the same {selector} as the caller{}",
                named(second_name.as_str()),
                named(first_name.as_str())
            ),
        ),
    };
    let place = findings.position(places[*first].offset()).line;
    findings.wrong(
        places[*second].offset(),
        format!("{message} of line {place}: give each peer one caller, and each caller its own name"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_root_and_no_strange_name() {
        assert_eq!(SystemAccounts.user("root").unwrap(), Some(0));
        assert_eq!(SystemAccounts.group("root").unwrap(), Some(0));
        assert_eq!(SystemAccounts.user("no such user here").unwrap(), None);
        assert_eq!(SystemAccounts.group("nul\0").unwrap(), None);
    }
}
