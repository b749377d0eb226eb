//! The record of call times as a file: one per upstream origin, shared by all processes of the host.
//!
//! It is made once at its full size, whole pages with room for every call that the limit makes it keep, and then
//! overwritten in place, so that a full disk can't keep a call from being written down. A greater limit makes it grow
//! with the next call; it never shrinks, and any size is read. A torn write shows in the checksum. The text is for
//! people too:
//!
//! ```text
//! b2binpay-broker calls 1
//! origin https://v3.api.b2binpay.com:443
//! boot 0b5f7c1e-…
//! assumed 1234567890123 1763769600000000000
//! call 1234567890123 1763769600000000000
//! sum 9f86d081…
//! ```
//!
//! A call's first number is `CLOCK_BOOTTIME` in nanoseconds, valid while the machine has not been booted since; the second
//! is the wall clock, for after that.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::{
    budget::{CallLimit, CallRecord, History, PastCall, RecordUnusable},
    clock::{BootInstant, Clock, Now},
};

const HEADER: &str = "b2binpay-broker calls 1";

/// What disks and file systems hand out at once.
const PAGE: usize = 4096;

/// More than [`MOST_REQUESTS`](crate::budget::MOST_REQUESTS) calls need; what is longer is no record.
const LARGEST: usize = 16 * PAGE;

/// What a call needs: a word, two clocks of at most 20 digits, and what is between and after them.
const LINE: usize = 51;

/// How often, and how long after each other, the lock is tried for: it is held for one write and one sync.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The clocks of a host may be read in two processes a little apart.
const CLOCK_SLACK: Duration = Duration::from_millis(100);

/// A record of call times in the state directory.
pub struct CallRecordFile {
    path: PathBuf,
    origin: String,
    boot_id: String,
    /// How many calls there is to be room for.
    room: usize,
    lock_tries: u32,
}

impl CallRecordFile {
    /// The record of calls to `origin`, such as `https://v3.api.b2binpay.com:443`, in `directory`. Nothing is read or
    /// made yet.
    pub fn new(directory: &Path, origin: &str) -> Self {
        let readable: String = origin
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
            .take(100)
            .collect();
        // Two origins may look alike once they are readable.
        let digest = hex(&Sha256::digest(origin.as_bytes())[..4]);
        Self {
            path: directory.join(format!("calls-{readable}-{digest}")),
            origin: origin.to_owned(),
            boot_id: boot_id(),
            room: 0,
            lock_tries: LOCK_TRIES,
        }
    }

    /// Makes room on the disk, with the first call, for all calls that `limit` may ever want to be kept. Without this
    /// the file grows with its content, a page at a time.
    #[must_use]
    pub fn with_room_for(self, limit: CallLimit) -> Self {
        Self { room: limit.requests() as usize, ..self }
    }

    /// This record, on a machine that was booted as `boot_id`, in a process that has no time to wait for locks.
    #[cfg(test)]
    pub(crate) fn on_boot(self, boot_id: &str) -> Self {
        Self { boot_id: boot_id.to_owned(), lock_tries: 1, ..self }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the directory does not outlive the machine or the container, if it can be told.
    pub fn passing_directory(directory: &Path) -> Option<&'static str> {
        let kind = nix::sys::statfs::statfs(directory).ok()?.filesystem_type();
        match kind {
            nix::sys::statfs::TMPFS_MAGIC => Some("it is on a tmpfs, which is gone with a reboot"),
            nix::sys::statfs::OVERLAYFS_SUPER_MAGIC => {
                Some("it is on an overlay, as in a container without a volume, and is gone with it")
            }
            _ => None,
        }
    }

    fn failed(&self, what: &str, error: &io::Error) -> RecordUnusable {
        RecordUnusable(format!("{}: can't {what}: {error}", self.path.display()))
    }

    /// The open file, and whether it was made by this call.
    fn open(&self) -> io::Result<(File, bool)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        match options.open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened.map(|file| (file, false)),
        }
        match options.create_new(true).open(&self.path) {
            // Another process was quicker.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                options.create_new(false).open(&self.path).map(|file| (file, false))
            }
            opened => opened.map(|file| (file, true)),
        }
    }

    fn lock(&self, mut file: File) -> Result<Flock<File>, RecordUnusable> {
        for _ in 0..self.lock_tries {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(locked),
                Err((unlocked, nix::errno::Errno::EWOULDBLOCK)) => file = unlocked,
                Err((_, errno)) => return Err(self.failed("lock", &errno.into())),
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(RecordUnusable(format!(
            "{}: another process has held its lock for {:?}; is one of them stopped?",
            self.path.display(),
            LOCK_PAUSE * self.lock_tries
        )))
    }

    fn read(&self, file: &File, now: Now) -> io::Result<History> {
        let mut bytes = vec![0; LARGEST + 1];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match self.parse(&bytes[..length], now) {
            Ok(calls) => History::Kept(calls),
            Err(why) => History::Senseless(why),
        })
    }

    fn parse(&self, bytes: &[u8], now: Now) -> Result<Vec<PastCall>, String> {
        if bytes.is_empty() {
            return Err("it is empty".into());
        }
        if bytes.len() > LARGEST {
            return Err(format!("it is longer than {LARGEST} bytes"));
        }
        let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (body, rest) = text.rsplit_once("sum ").ok_or("it has no checksum")?;
        if rest.trim_end() != hex(&Sha256::digest(body.as_bytes())) {
            return Err("its checksum is wrong".into());
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEADER) {
            return Err("it is of another version".into());
        }
        if lines.next().and_then(|line| line.strip_prefix("origin ")) != Some(&self.origin) {
            return Err("it is about another upstream".into());
        }
        let boot = lines.next().and_then(|line| line.strip_prefix("boot ")).ok_or("it names no boot")?;
        let same_boot = !self.boot_id.is_empty() && boot == self.boot_id;
        let mut calls = lines
            .map(|line| parse_call(line).ok_or("it has a line that can't be read"))
            .map(|call| call.and_then(|call| call.placed(same_boot, now)))
            .collect::<Result<Vec<_>, _>>()?;
        calls.sort_unstable();
        Ok(calls)
    }

    /// The text for `calls`, filled up to whole pages, of which there are no fewer than in a file of `length` bytes.
    fn render(&self, calls: &[PastCall], now: Now, length: u64) -> Vec<u8> {
        let mut text = format!("{HEADER}\norigin {}\nboot {}\n", self.origin, self.boot_id);
        let full = text.len() + calls.len().max(self.room) * LINE + "sum \n".len() + 64;
        for call in calls {
            let word = if call.assumed { "assumed" } else { "call" };
            let (boot, wall) = (call.at.as_duration().as_nanos(), now.wall_at(call.at).as_nanosecond());
            // Writing to a String can't fail.
            let _ = writeln!(text, "{word} {boot} {wall}");
        }
        let sum = hex(&Sha256::digest(text.as_bytes()));
        let _ = writeln!(text, "sum {sum}");
        let mut bytes = text.into_bytes();
        let length = usize::try_from(length).map_or(LARGEST, |length| length.min(LARGEST));
        bytes.resize(full.max(length).next_multiple_of(PAGE), b'\n');
        bytes
    }
}

impl CallRecord for CallRecordFile {
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable> {
        let (file, made_here) = self.open().map_err(|error| self.failed("open", &error))?;
        let file = self.lock(file)?;
        let now = clock.now();
        let length = file.metadata().map_err(|error| self.failed("read", &error))?.len();
        // An empty file that somebody else made, now or long ago, tells nothing of what they did since.
        let history = if made_here && length == 0 {
            History::Missing
        } else {
            self.read(&file, now).map_err(|error| self.failed("read", &error))?
        };
        let Some(calls) = decide(history, now) else { return Ok(()) };
        let content = self.render(&calls, now, length);
        file.write_all_at(&content, 0)
            .and_then(|()| file.set_len(content.len() as u64))
            .and_then(|()| file.sync_all())
            .map_err(|error| self.failed("write", &error))?;
        if made_here {
            // The name must last as well as the content.
            self.path
                .parent()
                .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
                .map_err(|error| self.failed("sync the directory of", &error))?;
        }
        Ok(())
    }
}

struct RecordedCall {
    assumed: bool,
    boot: BootInstant,
    wall: Timestamp,
}

impl RecordedCall {
    /// The call on this boot's clock.
    fn placed(&self, same_boot: bool, now: Now) -> Result<PastCall, &'static str> {
        let at = if same_boot {
            if self.boot > now.boot + CLOCK_SLACK {
                return Err("it has a call in the future");
            }
            self.boot
        } else {
            let age = now.wall.duration_since(self.wall);
            let age =
                Duration::try_from(age).map_err(|_| "by the wall clock, it has a call in the future")?;
            now.boot - age
        };
        Ok(PastCall { at, assumed: self.assumed })
    }
}

fn parse_call(line: &str) -> Option<RecordedCall> {
    let mut words = line.split(' ');
    let assumed = match words.next()? {
        "assumed" => true,
        "call" => false,
        _ => return None,
    };
    let boot = BootInstant::since_boot(Duration::from_nanos(words.next()?.parse().ok()?));
    let wall = Timestamp::from_nanosecond(words.next()?.parse().ok()?).ok()?;
    words.next().is_none().then_some(RecordedCall { assumed, boot, wall })
}

/// Tells one boot of the machine from another. Empty where it can't be read; then records are judged by the wall clock.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://v3.api.b2binpay.com:443";

    impl Clock for Now {
        fn now(&self) -> Now {
            *self
        }
    }

    fn now(seconds: u64) -> Now {
        let since_boot = Duration::from_secs(seconds);
        Now { boot: BootInstant::since_boot(since_boot), wall: Timestamp::UNIX_EPOCH + since_boot }
    }

    fn record() -> (tempfile::TempDir, CallRecordFile) {
        let directory = tempfile::tempdir().unwrap();
        let record = CallRecordFile::new(directory.path(), ORIGIN);
        (directory, record)
    }

    fn history(record: &CallRecordFile, now: Now) -> History {
        let mut seen = None;
        record
            .update(&now, &mut |history, _| {
                seen = Some(history);
                None
            })
            .unwrap();
        seen.unwrap()
    }

    fn add(record: &CallRecordFile, now: Now) {
        record
            .update(&now, &mut |history, _| {
                let mut calls = if let History::Kept(calls) = history { calls } else { Vec::new() };
                calls.push(PastCall::made(now.boot));
                Some(calls)
            })
            .unwrap();
    }

    #[test]
    fn what_is_written_is_read_again_by_another_process() {
        let (directory, record) = record();
        assert_eq!(history(&record, now(100)), History::Missing);
        std::fs::remove_file(record.path()).unwrap();
        add(&record, now(100));
        add(&record, now(106));
        let other = CallRecordFile::new(directory.path(), ORIGIN);
        let expected = [100, 106].map(|time| PastCall::made(now(time).boot));
        assert_eq!(history(&other, now(107)), History::Kept(expected.into()));
    }

    fn limit(requests: u32) -> CallLimit {
        CallLimit::new(requests, Duration::from_secs(60)).unwrap()
    }

    fn keep(record: &CallRecordFile, calls: usize) {
        let at = now(u64::from(u32::MAX));
        record.update(&at, &mut |_, now| Some(vec![PastCall::assumed(now.boot); calls])).unwrap();
    }

    #[test]
    fn the_file_has_its_full_size_from_the_first_call_on_and_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        for requests in [3, 15, 60, 100, 1000] {
            let (_directory, record) = record();
            let record = record.with_room_for(limit(requests));
            keep(&record, 1);
            let found = std::fs::metadata(record.path()).unwrap();
            assert_eq!((found.len() % 4096, found.permissions().mode() & 0o777), (0, 0o600));
            keep(&record, requests as usize);
            assert_eq!(std::fs::metadata(record.path()).unwrap().len(), found.len(), "{requests}");
            assert!(found.len() <= LARGEST as u64);
        }
    }

    #[test]
    fn a_record_that_was_made_for_another_limit_is_read_and_grows_but_does_not_shrink() {
        let (directory, record) = record();
        let small = record.with_room_for(limit(15));
        keep(&small, 15);
        let length = || std::fs::metadata(small.path()).unwrap().len();
        let large = CallRecordFile::new(directory.path(), ORIGIN).with_room_for(limit(1000));
        let History::Kept(calls) = history(&large, now(u64::from(u32::MAX))) else { panic!("no history") };
        assert_eq!((calls.len(), length()), (15, 4096));
        keep(&large, 15);
        let grown = length();
        assert!(grown > 50_000, "{grown}");
        keep(&small, 15);
        assert_eq!(length(), grown);
        let History::Kept(calls) = history(&small, now(u64::from(u32::MAX))) else { panic!("no history") };
        assert_eq!(calls.len(), 15);
    }

    #[test]
    fn what_is_too_long_to_be_a_record_is_replaced_by_one() {
        let (_directory, record) = record();
        std::fs::write(record.path(), vec![b'\n'; LARGEST + 1]).unwrap();
        let History::Senseless(why) = history(&record, now(1)) else { panic!("believed") };
        assert!(why.contains("longer than 65536"), "{why}");
        keep(&record, 1);
        assert!(matches!(history(&record, now(u64::from(u32::MAX))), History::Kept(_)));
    }

    #[test]
    fn any_changed_byte_makes_it_senseless() {
        let (_directory, record) = record();
        add(&record, now(100));
        let good = std::fs::read(record.path()).unwrap();
        let text_length = good.iter().rposition(|byte| *byte != b'\n').unwrap() + 1;
        for position in 0..text_length {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(record.path(), &bad).unwrap();
            assert!(matches!(history(&record, now(101)), History::Senseless(_)), "byte {position}");
        }
        // The last character of the text is a line's end.
        for length in (0..text_length).chain([PAGE + 1]) {
            std::fs::write(record.path(), good.iter().copied().cycle().take(length).collect::<Vec<_>>())
                .unwrap();
            assert!(matches!(history(&record, now(101)), History::Senseless(_)), "length {length}");
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_judges() {
        let (directory, record) = record();
        add(&record, now(1000));
        let rebooted = CallRecordFile::new(directory.path(), ORIGIN).on_boot("another boot");
        let later = Now { boot: BootInstant::since_boot(Duration::from_secs(50)), wall: now(1030).wall };
        let expected = PastCall::made(BootInstant::since_boot(Duration::from_secs(20)));
        assert_eq!(history(&rebooted, later), History::Kept(vec![expected]));
        let earlier = Now { wall: now(900).wall, ..later };
        assert!(matches!(history(&rebooted, earlier), History::Senseless(_)), "the wall clock went back");
    }

    #[test]
    fn a_call_in_the_future_makes_no_sense() {
        let (_directory, record) = record();
        add(&record, now(1000));
        assert!(matches!(history(&record, now(900)), History::Senseless(_)));
    }

    #[test]
    fn each_upstream_has_a_record_of_its_own() {
        let directory = Path::new("/state");
        let path = |origin| CallRecordFile::new(directory, origin).path().to_owned();
        assert_ne!(path("https://a.b:443"), path("https://a_b:443"));
        assert_ne!(path("http://127.0.0.1:1"), path("http://127.0.0.1:2"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let record = CallRecordFile::new(Path::new("/nowhere/at/all"), ORIGIN);
        let error = record.update(&now(1), &mut |_, _| None).unwrap_err();
        assert!(error.0.contains("/nowhere/at/all/calls-") && error.0.contains("can't open"), "{error}");
    }

    #[test]
    fn a_lock_that_is_never_given_back_is_an_error_in_time() {
        let (_directory, record) = record();
        add(&record, now(100));
        let _held = record.lock(record.open().unwrap().0).unwrap();
        let error = record.update(&now(101), &mut |_, _| None).unwrap_err();
        assert!(error.0.contains("lock"), "{error}");
    }
}
