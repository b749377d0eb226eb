//! The file against those who move it, remove it and cut it short.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::{
    audit::{AuditSink, Event, Record},
    clock::{Clock, SystemClock},
};

fn open(path: &Path) -> Result<AuditFile, CannotAudit> {
    AuditFile::open(path, Arc::new(SystemClock))
}

fn opened() -> (AuditFile, TempDir, std::path::PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    (open(&path).unwrap(), folder, path)
}

fn record(event: Event) -> Record {
    Record::new(event, Timestamp::from_second(1_795_000_000).unwrap())
}

/// The events in a file; what is no line is shown as it is.
fn events(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let event = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => line["event"].as_str().unwrap().to_owned(),
        Err(_) => line.to_owned(),
    };
    text.lines().map(event).collect()
}

/// Waits for something that the writing thread does.
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = SystemClock;
    let end = clock.now().boot + Duration::from_secs(60);
    while !holds() {
        assert!(clock.now().boot < end, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn lines_are_appended_to_what_is_there_and_others_may_not_read_them() {
    let (trail, _folder, path) = opened();
    trail.write(record(Event::Started));
    trail.flush();
    assert_eq!(events(&path), ["started"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
    drop(trail);
    let trail = open(&path).unwrap();
    trail.write(record(Event::Stopped));
    trail.flush();
    assert_eq!(events(&path), ["started", "stopped"]);
    assert_eq!(trail.state().destination, path.display().to_string());
    assert_eq!((trail.state().lost, trail.state().problem), (0, String::new()));
}

#[test]
fn a_file_that_is_moved_away_or_removed_is_made_again_by_itself() {
    let (trail, folder, path) = opened();
    trail.write(record(Event::Started));
    trail.flush();
    let old = folder.path().join("audit.jsonl.1");
    fs::rename(&path, &old).unwrap();
    soon("another file", || path.exists());
    trail.write(record(Event::Reload));
    trail.flush();
    assert_eq!(events(&old), ["started"]);
    assert_eq!(events(&path), ["reload"]);

    fs::remove_file(&path).unwrap();
    trail.write(record(Event::Unlock));
    soon("the line", || events(&path) == ["unlock"]);
}

#[test]
fn what_follows_half_a_line_is_a_line_of_its_own() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    fs::write(&path, "{\"log\":\"au").unwrap();
    let trail = open(&path).unwrap();
    trail.write(record(Event::Started));
    trail.write(record(Event::Stopped));
    trail.flush();
    assert_eq!(events(&path), ["{\"log\":\"au", "started", "stopped"]);
}

#[test]
fn a_folder_that_is_gone_loses_lines_which_are_counted_and_told_when_it_is_back() {
    let (trail, folder, _) = opened();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("audit.jsonl");
    drop(trail);
    let trail = open(&path).unwrap();
    fs::remove_dir_all(&inner).unwrap();
    soon("the problem is told", || !trail.state().problem.is_empty());
    assert!(trail.state().problem.contains("can't be opened"), "{}", trail.state().problem);
    for _ in 0..3 {
        trail.write(record(Event::Reload));
    }
    soon("the loss is counted", || trail.state().lost == 3);
    fs::create_dir(&inner).unwrap();
    soon("the loss is told", || events(&path) == ["audit_lost"]);
    soon("all is well", || trail.state().problem.is_empty());
    assert!(fs::read_to_string(&path).unwrap().contains("\"count\":3"));
    trail.write(record(Event::Stopped));
    trail.flush();
    assert_eq!(events(&path), ["audit_lost", "stopped"]);
}

#[test]
fn a_file_that_can_t_be_made_again_is_used_for_as_long_as_it_has_a_name() {
    let (trail, folder, path) = opened();
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    // In one step: no moment is left for the writer to make another file.
    renameat2(AT_FDCWD, &path, AT_FDCWD, &old, RenameFlags::RENAME_EXCHANGE).unwrap();
    soon("the problem is told", || !trail.state().problem.is_empty());
    trail.write(record(Event::Reload));
    trail.flush();
    assert_eq!(events(&old), ["reload"]);
    assert_eq!(trail.state().lost, 0);
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let full = folder.path().join("full");
    symlink("/dev/full", &full).unwrap();
    for path in [folder.path(), &fifo, &full] {
        assert!(matches!(open(path), Err(CannotAudit::NotAFile(_))), "{}", path.display());
    }
    let nowhere = folder.path().join("no/such/folder");
    let Err(error) = open(&nowhere) else { panic!("it was opened") };
    assert!(error.to_string().contains("its folder must exist"), "{error}");
}

#[test]
fn no_more_waits_than_there_is_room_for_and_the_rest_is_counted() {
    let (trail, _folder, path) = opened();
    let many: u64 = 20_000;
    for _ in 0..many {
        trail.write(record(Event::Reload));
    }
    trail.flush();
    soon("all is written", || {
        let text = fs::read_to_string(&path).unwrap();
        let mut told = 0;
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            told += line["count"].as_u64().unwrap_or(1);
            assert!(line["event"] == "reload" || line["event"] == "audit_lost");
        }
        told == many
    });
}
