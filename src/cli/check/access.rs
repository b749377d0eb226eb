//! Whether the broker's own user can read what root can: `check` is mostly run as root, which every mode lets in.
//!
//! By owners and modes alone. Access lists may say otherwise, so what is found is a warning and no error.

use std::{
    ffi::CString,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

use super::report::Report;
use crate::config::Config;

/// The user that packages make for the broker.
const PACKAGED: &str = "b2binpay-broker";

/// Who the broker will be, when that is not who runs `check`.
pub(super) struct ServiceUser {
    name: String,
    uid: Uid,
    groups: Vec<Gid>,
}

impl ServiceUser {
    /// The owner of the state directory; before there is one, the user that packages make. `None` for anybody but root, who
    /// tries for themselves.
    pub(super) fn of(config: &Config) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let owner = fs::metadata(&config.state_directory).ok().map(|found| Uid::from_raw(found.uid()));
        let user = match owner {
            Some(owner) => User::from_uid(owner),
            None => User::from_name(PACKAGED),
        };
        let user = user.ok().flatten().filter(|user| !user.uid.is_root())?;
        let groups =
            CString::new(user.name.as_str()).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
        Some(Self { name: user.name, uid: user.uid, groups: groups.unwrap_or_else(|| vec![user.gid]) })
    }

    /// Warns if this user can't read `path`, which `what` names. `unless` is when that is as it should be, fit to follow a
    /// comma.
    pub(super) fn look(&self, what: &str, path: &Path, unless: &str, report: &mut Report) {
        // Links are followed, as they will be then.
        let Ok(path) = fs::canonicalize(path) else { return };
        for folder in path.ancestors().skip(1) {
            if fs::metadata(folder).is_ok_and(|found| !self.may(&found, 0o1)) {
                report.warning(format!(
                    "{what}: the broker's user {} can't get into {}: run chgrp {} and chmod g+rx on it{unless}",
                    self.name,
                    folder.display(),
                    self.name
                ));
                return;
            }
        }
        if fs::metadata(&path).is_ok_and(|found| !self.may(&found, 0o4)) {
            report.warning(format!(
                "{what}: the broker's user {} can't read {}: run chgrp {} and chmod 640 on it{unless}",
                self.name,
                path.display(),
                self.name
            ));
        }
    }

    /// Whether the mode lets this user do what the bits of `wanted` say: 4 read, 1 enter.
    fn may(&self, found: &Metadata, wanted: u32) -> bool {
        let ours = if found.uid() == self.uid.as_raw() {
            found.mode() >> 6
        } else if self.groups.iter().any(|gid| gid.as_raw() == found.gid()) {
            found.mode() >> 3
        } else {
            found.mode()
        };
        ours & wanted == wanted
    }
}

/// What the configuration names beside credentials: all that is read at the start and at each reload.
pub(super) fn files(config: &Config, user: &ServiceUser, report: &mut Report) {
    user.look("the configuration", &config.file, "", report);
    if let Some(path) = &config.upstream.ca_file {
        user.look("upstream.ca_file", path, "", report);
    }
    for tls in config.listen.iter().filter_map(|listen| listen.tls()) {
        for file in [&tls.cert, &tls.key, &tls.client_ca].into_iter().chain(&tls.client_crls) {
            user.look(file.key, &file.path, "", report);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::output::Look;

    /// Someone who is neither the owner of what this process makes nor of its group.
    fn somebody(groups: Vec<Gid>) -> ServiceUser {
        ServiceUser { name: "broker".into(), uid: Uid::from_raw(3_999_999_998), groups }
    }

    fn said_of(user: &ServiceUser, path: &Path) -> String {
        let mut report = Report::default();
        report.section("F");
        user.look("credentials.key_file", path, ", unless systemd hands it over", &mut report);
        report.render(Look::PLAIN)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_the_broker_s_user_cannot_read_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o755);
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("api-key");
        fs::write(&file, "key").unwrap();
        let ours = Gid::from_raw(fs::metadata(&file).unwrap().gid());
        let (member, stranger) = (somebody(vec![ours]), somebody(Vec::new()));

        set_mode(&inner, 0o750);
        set_mode(&file, 0o640);
        assert!(said_of(&member, &file).ends_with("\n\nok\n"), "{}", said_of(&member, &file));
        let told = said_of(&stranger, &file);
        assert!(told.contains("can't get into") && told.contains("unless systemd hands it over"), "{told}");

        set_mode(&inner, 0o755);
        let told = said_of(&stranger, &file);
        assert!(told.contains("can't read") && told.contains("chmod 640"), "{told}");
        set_mode(&file, 0o600);
        assert!(said_of(&member, &file).contains("can't read"));
        // Whoever is of the group is judged by its bits, even where others may.
        set_mode(&file, 0o604);
        assert!(said_of(&member, &file).contains("can't read"));
        assert!(said_of(&stranger, &file).ends_with("\n\nok\n"));
    }
}
