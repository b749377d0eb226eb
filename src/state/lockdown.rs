//! The lockdown flag: the locks in force as a file, so that they survive the process.
//!
//! Several instances with configurations of their own may share a state directory, and a lockdown is of one of them: its
//! credentials are what is at stake, not its neighbours'. So there is a flag for each, named after the path of the
//! configuration as it was given, which also stands inside, for people. Links in it are not followed: whoever mounts or
//! installs configurations swaps the link to change what is in them, and a lock must not be lost by that. A configuration
//! that is given by another path takes no flag along; [`LockdownFlag::strangers`] tells of those that may be such.
//!
//! No file: nobody is locked out. A file that can't be read, or made sense of, means that **everyone** is, and says so
//! until an operator unlocks. It is replaced as a whole (written beside, synced, renamed, the directory synced), so that a
//! crash leaves the old one or the new one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::lockdown::{Lock, LockReason, LockRecord, Locks, NotWritten};

const VERSION: u32 = 1;

/// How the flags of all instances are named.
const BEGINNING: &str = "lockdown-";

/// A thousand callers with the longest reasons are half of it.
const LARGEST: u64 = 4 << 20;

/// The flag of one instance.
#[derive(Clone, Debug)]
pub struct LockdownFlag {
    path: PathBuf,
    config: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    config: String,
    everyone: Option<WrittenLock>,
    callers: BTreeMap<String, WrittenLock>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLock {
    since: Timestamp,
    reason: String,
    by: String,
}

impl LockdownFlag {
    /// The flag in `directory` of the instance with this configuration. Nothing is read or made yet.
    pub fn new(directory: &Path, config: &Path) -> Self {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let digest = Sha256::digest(config.as_os_str().as_encoded_bytes());
        let name = digest[..8].iter().fold(String::from(BEGINNING), |mut name, byte| {
            // Writing to a String can't fail.
            let _ = write!(name, "{byte:02x}");
            name
        });
        Self { path: directory.join(name), config: config.display().to_string() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flags in the same directory that are of other configurations, each with the path that it names as far as that can be
    /// read. Other instances may share the directory; or this one was started with another path before, and that is its lock.
    pub fn strangers(&self) -> Vec<(PathBuf, Option<String>)> {
        let entries =
            self.path.parent().and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten();
        let flags = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| {
                let digits = name.strip_prefix(BEGINNING);
                digits.is_some_and(|digits| {
                    digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
                })
            })
        });
        let mut others: Vec<_> = flags.map(|entry| entry.path()).filter(|path| *path != self.path).collect();
        others.sort_unstable();
        let named = |path: PathBuf| {
            let config = Self { path: path.clone(), config: String::new() }.written().ok().flatten();
            (
                path,
                config.map(|content| content.config).filter(|config| !config.chars().any(char::is_control)),
            )
        };
        others.into_iter().map(named).collect()
    }

    /// The locks to begin with at the time `now`.
    pub fn read(&self, now: Timestamp) -> Locks {
        match self.content() {
            Ok(Some(locks)) => locks,
            Ok(None) => Locks::default(),
            Err(why) => {
                let reason = format!(
                    "the lockdown flag {} {why}, and so everyone is locked out; an operator's unlock replaces it",
                    self.path.display()
                );
                let reason = LockReason::of_broker(&reason);
                let lock = Lock { since: now, reason, by: Lock::BROKER.to_owned() };
                Locks::new(Some(lock), BTreeMap::new())
            }
        }
    }

    /// The locks that it tells of; `None` where there is none.
    fn content(&self) -> Result<Option<Locks>, String> {
        let Some(content) = self.written()? else { return Ok(None) };
        content.locks().filter(|locks| !locks.is_empty()).map(Some).ok_or_else(|| "makes no sense".to_owned())
    }

    /// What stands in it; `None` where there is none.
    fn written(&self) -> Result<Option<Content>, String> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&self.path);
        let mut file = match file {
            Ok(file) => file,
            // There is surely none, and not even a place for one.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(format!("can't be opened ({error})")),
        };
        let mut text = Vec::new();
        (&mut file)
            .take(LARGEST + 1)
            .read_to_end(&mut text)
            .map_err(|error| format!("can't be read ({error})"))?;
        // What is wrong in it is not repeated: it may be anything.
        let content: Content = serde_json::from_slice(&text)
            .map_err(|error| format!("makes no sense (line {})", error.line()))?;
        if content.version != VERSION {
            return Err(format!("is of version {}, which this broker doesn't know", content.version));
        }
        Ok(Some(content))
    }

    fn replace(&self, locks: &Locks) -> io::Result<()> {
        let content = Content {
            version: VERSION,
            config: self.config.clone(),
            everyone: locks.on_everyone().map(WrittenLock::of),
            callers: locks
                .on_callers()
                .iter()
                .map(|(name, lock)| (name.to_string(), WrittenLock::of(lock)))
                .collect(),
        };
        let mut text = serde_json::to_vec_pretty(&content)?;
        text.push(b'\n');
        let beside = self.path.with_extension("new");
        // What a killed process left there; never followed, if it is a link.
        remove(&beside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl LockRecord for LockdownFlag {
    fn write(&self, locks: &Locks) -> Result<(), NotWritten> {
        let (what, changed) =
            if locks.is_empty() { ("remove", remove(&self.path)) } else { ("write", self.replace(locks)) };
        changed
            .and_then(|()| self.sync_directory())
            .map_err(|error| NotWritten(format!("{}: can't {what}: {error}", self.path.display())))
    }
}

impl WrittenLock {
    fn of(lock: &Lock) -> Self {
        Self { since: lock.since, reason: lock.reason.as_str().to_owned(), by: lock.by.clone() }
    }

    fn lock(self) -> Option<Lock> {
        let by = self.by;
        let plain = by.chars().count() <= LockReason::LONGEST && !by.chars().any(char::is_control);
        let reason = self.reason.parse().ok()?;
        plain.then_some(Lock { since: self.since, reason, by })
    }
}

impl Content {
    fn locks(self) -> Option<Locks> {
        let everyone = match self.everyone {
            Some(lock) => Some(lock.lock()?),
            None => None,
        };
        let callers = self.callers.into_iter().map(|(name, lock)| Some((name.parse().ok()?, lock.lock()?)));
        Some(Locks::new(everyone, callers.collect::<Option<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::lockdown::Scope;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn locks() -> Locks {
        let lock = |reason: &str| Lock { since: at(7), reason: reason.parse().unwrap(), by: "ops".into() };
        Locks::default()
            .with(&Scope::Everyone, lock("stolen laptop"))
            .with(&Scope::Caller("a.b-c".parse().unwrap()), lock("leaked \"token\""))
    }

    fn flag() -> (tempfile::TempDir, LockdownFlag) {
        let directory = tempfile::tempdir().unwrap();
        let flag = LockdownFlag::new(directory.path(), &directory.path().join("config.toml"));
        (directory, flag)
    }

    #[test]
    fn what_is_written_is_what_the_next_process_begins_with() {
        let (directory, flag) = flag();
        assert!(flag.read(at(9)).is_empty());
        flag.write(&locks()).unwrap();
        let again = LockdownFlag::new(directory.path(), &directory.path().join("config.toml"));
        assert_eq!(again.read(at(9)), locks());
        assert_eq!(fs::metadata(flag.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(flag.path()).unwrap().contains("config.toml"));
        flag.write(&Locks::default()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        flag.write(&Locks::default()).unwrap();
    }

    #[test]
    fn instances_that_share_the_directory_have_a_flag_each() {
        let (directory, flag) = flag();
        let other = LockdownFlag::new(directory.path(), &directory.path().join("other.toml"));
        flag.write(&locks()).unwrap();
        assert!(other.read(at(9)).is_empty());
        assert_eq!(other.strangers(), [(flag.path().to_owned(), Some(flag.config.clone()))]);
        fs::write(flag.path(), "{}").unwrap();
        fs::write(directory.path().join("lockdown-else"), "").unwrap();
        assert_eq!(other.strangers(), [(flag.path().to_owned(), None)]);
        assert_eq!(flag.strangers(), []);
    }

    #[test]
    fn a_lock_is_not_lost_when_a_link_in_the_configurations_path_is_swapped() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("current").join("config.toml");
        for version in ["one", "two"] {
            fs::create_dir(directory.path().join(version)).unwrap();
            fs::write(directory.path().join(version).join("config.toml"), version).unwrap();
        }
        let link = directory.path().join("current");
        symlink("one", &link).unwrap();
        LockdownFlag::new(directory.path(), &config).write(&locks()).unwrap();
        fs::remove_file(&link).unwrap();
        symlink("two", &link).unwrap();
        assert_eq!(LockdownFlag::new(directory.path(), &config).read(at(9)), locks());
    }

    #[test]
    fn a_flag_that_makes_no_sense_locks_everyone_until_it_is_replaced() {
        let whole = |(directory, flag): &(tempfile::TempDir, LockdownFlag)| {
            let _ = directory;
            flag.write(&locks()).unwrap();
            fs::read_to_string(flag.path()).unwrap()
        };
        let place = flag();
        let good = whole(&place);
        let (_directory, flag) = place;
        let damaged = [
            String::new(),
            "locked".into(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace("\"everyone\"", "\"everybody\""),
            good.replace("a.b-c", "a b"),
            good.replace("stolen laptop", "two\\nlines"),
            "{\"version\":1,\"config\":\"\",\"everyone\":null,\"callers\":{}}".into(),
        ];
        for text in damaged {
            fs::write(flag.path(), &text).unwrap();
            let found = flag.read(at(9));
            let lock = found.on_everyone().unwrap_or_else(|| panic!("{text}"));
            assert_eq!((lock.since, lock.by.as_str()), (at(9), Lock::BROKER));
            assert!(lock.reason.as_str().contains(&flag.path().display().to_string()), "{lock:?}");
        }
        flag.write(&Locks::default()).unwrap();
        assert!(flag.read(at(9)).is_empty());
    }

    #[test]
    fn what_is_no_file_locks_everyone() {
        let (directory, flag) = flag();
        symlink(directory.path().join("nowhere"), flag.path()).unwrap();
        assert!(flag.read(at(9)).on_everyone().is_some());
        fs::remove_file(flag.path()).unwrap();
        fs::create_dir(flag.path()).unwrap();
        assert!(flag.read(at(9)).on_everyone().is_some());
    }

    #[test]
    fn a_flag_that_can_t_be_written_is_told_by_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state");
        fs::write(&file, "").unwrap();
        let flag = LockdownFlag::new(&file, Path::new("config.toml"));
        assert!(flag.read(at(9)).is_empty(), "there is surely none");
        let problem = flag.write(&locks()).unwrap_err().to_string();
        assert!(
            problem.contains(&flag.path().display().to_string()) && problem.contains("can't write"),
            "{problem}"
        );
    }

    #[test]
    fn what_a_killed_process_left_behind_is_no_obstacle() {
        let (_directory, flag) = flag();
        fs::write(flag.path().with_extension("new"), "half").unwrap();
        flag.write(&locks()).unwrap();
        assert_eq!(flag.read(at(9)), locks());
    }
}
