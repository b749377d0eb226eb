//! Where the audit log is to be written. Nothing is made or changed.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, eaccess, geteuid},
};

use super::{
    host::{owned, writable_directory},
    report::Report,
};
use crate::config::Config;

/// With less room than this, in bytes, a disk is as good as full: a storm of denials is some 100 KiB a second.
const LITTLE: u64 = 64 << 20;

/// The file of `[audit] file`, its directory and its disk.
pub(super) fn trail(config: &Config, report: &mut Report) {
    report.section("Audit log");
    match &config.audit_file {
        None => report.ok("the journal: between the lines of the log, on stderr"),
        Some(path) => file(path, report),
    }
}

fn file(path: &Path, report: &mut Report) {
    let shown = path.display();
    let directory = path.parent().unwrap_or(Path::new("/"));
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            report.error(format!("{shown}: this is not a regular file: choose another path for audit.file"));
            return;
        }
        Ok(found) => {
            if let Err(errno) = eaccess(path, AccessFlags::R_OK | AccessFlags::W_OK) {
                report.error(format!(
                    "{shown}: this user (uid {}) can't read and write it: {}; it is {}: check as the broker's user, or give it \
                     to that one",
                    geteuid(),
                    io::Error::from(errno),
                    owned(&found)
                ));
                return;
            }
            report.ok(format!("{shown}: a file {}", owned(&found)));
            if found.mode() & 0o004 != 0 {
                report.warning(format!(
                    "{shown}: everybody on this host can read who calls from where: run chmod o-r"
                ));
            }
            if found.mode() & 0o022 != 0 {
                report.warning(format!(
                    "{shown}: others than its owner can change what was logged: run chmod go-w"
                ));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.note(format!("{shown}: there is no such file yet; the broker makes it, with mode 0640"));
        }
        Err(error) => {
            report.error(format!("{shown}: can't be looked at: {error}"));
            return;
        }
    }
    // Whoever rotates the file has another one made there.
    if writable_directory(directory, "LogsDirectory=", report) {
        room(directory, report);
    }
}

/// Whether its disk has room.
fn room(directory: &Path, report: &mut Report) {
    let Ok(disk) = statvfs(directory) else { return };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    // Some file systems have no fixed number of files, and say 0 of 0.
    let files = (disk.files() > 0).then(|| disk.files_available());
    if let Some(why) = short_of_room(free, files) {
        report.warning(format!(
            "{}: {why}: lines that can't be written are lost, and counted; make room, or choose another disk for audit.file",
            directory.display()
        ));
    }
}

fn short_of_room(free: u64, files: Option<u64>) -> Option<String> {
    if free < LITTLE {
        Some(format!("the disk has only {} MiB left", free >> 20))
    } else {
        (files == Some(0)).then(|| "the disk has no room for another file (no inodes left)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::cli::output::Look;

    fn looked_at(path: &Path) -> String {
        let mut report = Report::default();
        report.section("Audit log");
        file(path, &mut report);
        report.render(Look::PLAIN)
    }

    #[test]
    fn a_file_is_there_or_made_or_can_t_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        assert!(looked_at(&path).contains("the broker makes it"), "{}", looked_at(&path));
        let nowhere = looked_at(&folder.path().join("no/such/audit.jsonl"));
        assert!(nowhere.contains("LogsDirectory=") && nowhere.contains("warning"), "{nowhere}");
        let directory = looked_at(folder.path());
        assert!(directory.contains("not a regular file") && directory.ends_with("1 error\n"), "{directory}");
    }

    #[test]
    fn who_could_read_or_change_it_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "").unwrap();
        for (mode, told) in [(0o640, &[][..]), (0o644, &["chmod o-r"]), (0o666, &["chmod o-r", "chmod go-w"])]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let said = looked_at(&path);
            for word in ["chmod o-r", "chmod go-w"] {
                assert_eq!(said.contains(word), told.contains(&word), "{mode:o}: {said}");
            }
        }
    }

    #[test]
    fn a_disk_without_room_is_told() {
        assert_eq!(short_of_room(LITTLE, Some(1)), None);
        assert_eq!(short_of_room(LITTLE, None), None);
        assert!(short_of_room(LITTLE - 1, Some(1)).unwrap().contains("63 MiB"));
        assert!(short_of_room(u64::MAX, Some(0)).unwrap().contains("inodes"));
    }
}
