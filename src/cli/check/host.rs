//! What the broker needs of its host: directories, sockets, users. Nothing is made or changed.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use nix::unistd::{AccessFlags, Gid, Group, Uid, User, eaccess, geteuid};

use super::report::Report;
use crate::{
    budget::{CallRecord, History},
    cli::{
        layout::{Cell, moment, relative},
        output::Tone,
    },
    clock::{Now, SystemClock},
    config::Config,
    policy::{Permission, Rule, Selector},
    state::{CallRecordFile, LockdownFlag},
};

/// Whether the broker would begin locked.
fn lockdown(config: &Config, now: Now, report: &mut Report) {
    let flag = LockdownFlag::new(&config.state_directory, &config.file);
    for out in flag.read(now.wall).all() {
        report.warning(format!("{}: the broker begins locked: {out}", flag.path().display()));
    }
}

/// The state directory and the record of call times in it.
pub(super) fn state(config: &Config, now: Now, report: &mut Report) {
    let directory = &config.state_directory;
    report.section("State");
    if !writable_directory(directory, "StateDirectory=", report) {
        return;
    }
    if let Some(why) = CallRecordFile::passing_directory(directory) {
        report.warning(format!(
            "{}: {why}: what was called before is not known then, and the broker starts slowly instead of breaking the \
             limit",
            directory.display()
        ));
    }
    lockdown(config, now, report);
    let record = CallRecordFile::new(directory, config.upstream.base_url.origin());
    let path = record.path().display();
    // The record is made on first use, by the user who uses it.
    if !record.path().exists() {
        report.note(format!("{path}: no call was recorded yet; the first start makes one call at once, then one each few seconds"));
        return;
    }
    let mut history = None;
    let looked = record.update(&SystemClock, &mut |found, _| {
        history = Some(found);
        None
    });
    match (looked, history) {
        (Err(unusable), _) => report.error(unusable.to_string()),
        (Ok(()), Some(History::Senseless(why))) => report.warning(format!(
            "{path}: can't be believed: {why}; the broker assumes that all calls were just made, and then replaces it"
        )),
        (Ok(()), Some(History::Kept(calls))) => {
            let last = calls.iter().filter(|call| !call.assumed).map(|call| now.wall_at(call.at)).max();
            let last = last.map(|at| format!(", the last call {} ({})", relative(at, now.wall), moment(at)));
            report.ok(format!("{path}: the record of call times{}", last.unwrap_or_default()));
        }
        (Ok(()), _) => {}
    }
}

/// Who may do what.
pub(super) fn callers(config: &Config, report: &mut Report) {
    report.section("Callers");
    let heading = |text: &str| Cell::toned(text, Tone::Strong);
    let rules = config.policy().rules();
    if !rules.is_empty() {
        report.row(["CALLER", "WHO", "FROM", "RATE", "MAY"].map(heading));
    }
    for rule in rules {
        let may: Vec<_> = rule.allow.iter().map(Permission::as_str).collect();
        report.row([
            rule.name.as_str().into(),
            who(&rule.selector).into(),
            from(rule).into(),
            rule.rate.map_or_else(|| "any".to_owned(), |rate| rate.to_string()).into(),
            may.join(" ").into(),
        ]);
    }
}

fn from(rule: &Rule) -> String {
    if !rule.selector.is_remote() {
        "this host".to_owned()
    } else if rule.networks.is_empty() {
        "anywhere".to_owned()
    } else {
        rule.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }
}

fn who(selector: &Selector) -> String {
    let name = match selector {
        Selector::UnixUser(uid) => User::from_uid(Uid::from_raw(*uid)).ok().flatten().map(|user| user.name),
        Selector::UnixGroup(gid) => {
            Group::from_gid(Gid::from_raw(*gid)).ok().flatten().map(|group| group.name)
        }
        Selector::SystemdUnit(_) | Selector::Certificate(_) => return selector.to_string(),
    };
    match name {
        Some(name) => format!("{selector} ({name})"),
        None => format!("{selector} (no name on this host)"),
    }
}

/// Whether there is a directory that this user can make files in. `made_by` is the service manager's word for one that
/// it makes itself.
pub(super) fn writable_directory(directory: &Path, made_by: &str, report: &mut Report) -> bool {
    let shown = directory.display();
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => report.warning(format!(
            "{shown}: there is no such directory; make it for the broker's user, unless the service manager does (systemd: \
             {made_by})"
        )),
        Err(error) => report.error(format!("{shown}: can't be looked at: {error}")),
        Ok(found) if !found.is_dir() => report.error(format!("{shown}: this is no directory")),
        Ok(found) => match eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => {
                report.ok(format!("{shown}: a directory {}", owned(&found)));
                return true;
            }
            Err(errno) => report.error(format!(
                "{shown}: this user (uid {}) can't make files in it: {}; it is {}: check as the broker's user, or give it to \
                 that one",
                geteuid(),
                io::Error::from(errno),
                owned(&found)
            )),
        },
    }
    false
}

pub(super) fn owned(found: &Metadata) -> String {
    format!("of uid {}, mode {:04o}", found.uid(), found.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Look;

    fn looked_at(directory: &Path) -> String {
        let mut report = Report::default();
        report.section("D");
        writable_directory(directory, "StateDirectory=", &mut report);
        report.render(Look::PLAIN)
    }

    #[test]
    fn a_directory_is_there_or_made_by_somebody_or_wrong() {
        let directory = tempfile::tempdir().unwrap();
        assert!(looked_at(directory.path()).ends_with("\n\nok\n"));
        let missing = looked_at(&directory.path().join("missing"));
        assert!(missing.contains("StateDirectory=") && missing.ends_with("ok, 1 warning\n"), "{missing}");
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(looked_at(&file).ends_with("1 error\n"));
    }

    #[test]
    fn users_are_told_by_number_and_name() {
        assert_eq!(who(&Selector::UnixUser(0)), "uid 0 (root)");
        assert_eq!(who(&Selector::UnixGroup(0)), "gid 0 (root)");
        assert_eq!(who(&Selector::UnixUser(3_999_999_999)), "uid 3999999999 (no name on this host)");
    }
}
