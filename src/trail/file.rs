//! The audit log in a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::libc;

use crate::{
    audit::{AuditSink, Record, SinkState},
    clock::Clock,
    telemetry::{Batch, Lines},
};

/// How often the file is looked for where nothing is to be written: so soon after it was moved away is there another, and so
/// soon after there is room again is it said what was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// For the broker's user to write and its group to read: lines name people's processes.
const MODE: u32 = 0o640;

/// Why the audit log can't begin.
#[derive(Debug, thiserror::Error)]
pub enum CannotAudit {
    /// The system doesn't let us.
    #[error(
        "audit.file: {}: can't be opened: {error}; its folder must exist, and the broker's user must be able to write there",
        path.display()
    )]
    Closed {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is something that no lines can be kept in.
    #[error("audit.file: {}: there is something that is no regular file; remove it, or name another file", .0.display())]
    NotAFile(PathBuf),
    /// There is nobody to write it.
    #[error("audit.file: can't start a thread: {0}")]
    NoThread(io::Error),
}

/// Appends to a file, which others may move away, remove or empty meanwhile.
pub struct AuditFile(Arc<Shared>);

struct Shared {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    lines: Lines,
    reopen: AtomicBool,
    lost: AtomicU64,
    /// Empty: there is none.
    problem: Mutex<String>,
}

impl AuditFile {
    /// Opens the file at this absolute path, or makes it. Losses are told by this clock.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, CannotAudit> {
        let open = Open::at(path)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            clock,
            lines: Lines::default(),
            reopen: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            problem: Mutex::default(),
        });
        let writer = Writer { shared: Arc::clone(&shared), open, untold: 0, ailing: false };
        let started = std::thread::Builder::new().name("audit".into()).spawn(|| writer.run());
        started.map_err(CannotAudit::NoThread)?;
        Ok(Self(shared))
    }
}

impl AuditSink for AuditFile {
    fn write(&self, record: Record) {
        if !self.0.lines.push(record.line()) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reopen(&self) {
        self.0.reopen.store(true, Ordering::Relaxed);
    }

    fn flush(&self) {
        self.0.lines.flush(LAST_LINES);
    }

    fn state(&self) -> SinkState {
        SinkState {
            destination: self.0.path.display().to_string(),
            lost: self.0.lost.load(Ordering::Relaxed),
            problem: self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A file that is open.
struct Open {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// Whether its last line has no end.
    torn: bool,
}

impl Open {
    fn at(path: &Path) -> Result<Self, CannotAudit> {
        let closed = |error| CannotAudit::Closed { path: path.to_owned(), error };
        let mut options = OpenOptions::new();
        // Not to wait for whoever is at the other end of what is no file.
        options.read(true).append(true).create(true).mode(MODE).custom_flags(libc::O_NONBLOCK);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(_) if fs::metadata(path).is_ok_and(|found| !found.is_file()) => {
                return Err(CannotAudit::NotAFile(path.to_owned()));
            }
            Err(error) => return Err(closed(error)),
        };
        let found = file.metadata().map_err(closed)?;
        if !found.is_file() {
            return Err(CannotAudit::NotAFile(path.to_owned()));
        }
        let mut last = [b'\n'];
        if let Some(place) = found.len().checked_sub(1) {
            file.read_at(&mut last, place).map_err(closed)?;
        }
        Ok(Self { file, identity: (found.dev(), found.ino()), torn: last != *b"\n" })
    }

    /// Appends a line in one piece, unless the disk takes only a part of it.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        // What follows half a line is a line of its own.
        let whole = if self.torn { [b"\n", line].concat() } else { line.to_vec() };
        let mut written = 0;
        while written < whole.len() {
            match self.file.write(&whole[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    written += length;
                    self.torn = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.torn = false;
        Ok(())
    }

    /// Whether this is the file that `path` names.
    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }

    /// Whether somebody could still find it.
    fn has_a_name(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() > 0)
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    open: Open,
    /// Lines that were lost and are not told of in the file yet.
    untold: u64,
    /// Whether the log was told of a problem.
    ailing: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let Batch { lines, lost } = self.shared.lines.take_within(LOOK_EVERY);
            let mut problem = self.follow_the_path().err();
            for line in &lines {
                if let Err(error) = self.append(line) {
                    problem = Some(error);
                    self.untold += 1;
                    self.shared.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            // They came when the queue was full, and so after those in it.
            self.untold += lost;
            let untold = self.untold;
            if untold > 0 {
                match self.append(&Record::lost(untold, self.shared.clock.now().wall).line()) {
                    Ok(()) => self.untold = 0,
                    Err(error) => problem = Some(error),
                }
            }
            self.tell(problem, untold);
            self.shared.lines.written(0);
        }
    }

    /// Opens another file if the path names another, or somebody wants it. Where that fails the old one has to do, as long
    /// as it has a name.
    fn follow_the_path(&mut self) -> Result<(), String> {
        let path = &self.shared.path;
        let wanted = self.shared.reopen.swap(false, Ordering::Relaxed);
        if !wanted && self.open.is_at(path) {
            return Ok(());
        }
        match Open::at(path) {
            Ok(open) => {
                self.open = open;
                Ok(())
            }
            Err(error) => {
                self.shared.reopen.store(wanted, Ordering::Relaxed);
                Err(error.to_string())
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> Result<(), String> {
        if !self.open.has_a_name() {
            return Err(format!("{}: the file is gone", self.shared.path.display()));
        }
        self.open.append(line).map_err(|error| format!("{}: {error}", self.shared.path.display()))
    }

    /// Keeps the problem for the status, and tells the log when one begins and when it is over.
    fn tell(&mut self, problem: Option<String>, untold: u64) {
        match &problem {
            Some(problem) if !std::mem::replace(&mut self.ailing, true) => {
                tracing::error!("the audit log can't be written, and what can't be is lost: {problem}");
            }
            None if std::mem::take(&mut self.ailing) => {
                tracing::info!(lost = untold, "the audit log is written again");
            }
            None if untold > 0 => {
                tracing::error!(lost = untold, "audit lines were lost: the disk is too slow");
            }
            Some(_) | None => {}
        }
        *self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem.unwrap_or_default();
    }
}
