//! `[[caller]]`: from names to the numbers that the kernel knows, and to a policy.

use std::io;

use nix::unistd::{Group, User};

use super::{
    errors::{Findings, named, nearest},
    section::Section,
};
use crate::{
    caller::CallerName,
    policy::{Conflict, Permissions, Policy, Rule, Selector},
};

/// The host's users and groups.
pub trait Accounts {
    /// The number of the user with this name, if there is one.
    fn user(&self, name: &str) -> io::Result<Option<u32>>;
    /// The number of the group with this name, if there is one.
    fn group(&self, name: &str) -> io::Result<Option<u32>>;
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
    Policy::new(rules).unwrap_or_else(|conflicts| {
        for conflict in &conflicts {
            report(conflict, &places, findings);
        }
        Policy::default()
    })
}

fn rule(section: &Section<'_>, accounts: &dyn Accounts, findings: &Findings<'_>) -> Option<Rule> {
    // All three are looked at before the first that is missing ends it.
    let name = name(section);
    let selector = selector(section, accounts);
    let allow = allow(section, findings);
    Some(Rule { name: name?, selector: selector?, allow: allow? })
}

fn name(section: &Section<'_>) -> Option<CallerName> {
    let (text, value) = section.text("name")?;
    text.parse().map_err(|error| value.wrong(format!("can't be used: {error}"))).ok()
}

fn selector(section: &Section<'_>, accounts: &dyn Accounts) -> Option<Selector> {
    let ((text, value), user) = match (section.get("unix_user"), section.get("unix_group")) {
        (Some(_), None) => (section.text("unix_user")?, true),
        (None, Some(_)) => (section.text("unix_group")?, false),
        (Some(_), Some(second)) => {
            second.wrong("stands beside caller.unix_user: a caller is one or the other, write two callers");
            return None;
        }
        (None, None) => {
            section.wrong("this caller has no unix_user and no unix_group; exactly one says who it is");
            return None;
        }
    };
    let sort = if user { "user" } else { "group" };
    let number = if text.bytes().all(|b| b.is_ascii_digit()) {
        // The greatest number means "no user" to the kernel.
        text.parse().ok().filter(|number| *number != u32::MAX).or_else(|| {
            value.wrong(format!("is no number that a {sort} can have"));
            None
        })
    } else {
        let found = if user { accounts.user(text) } else { accounts.group(text) };
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
    Some(if user { Selector::UnixUser(number) } else { Selector::UnixGroup(number) })
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
