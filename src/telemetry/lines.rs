//! Lines on their way to stderr or a file, written by a thread of their own.
//!
//! Nobody who says something ever waits for who reads: a full pipe would stop the keeper, and so every caller. What doesn't
//! fit is lost, and how much was is told as soon as somebody reads on.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// So much waits for a reader: about a thousand lines.
const MOST_BYTES: usize = 256 * 1024;

/// Lines that wait to be written. Its clones are the same.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: Vec<Vec<u8>>,
    bytes: usize,
    lost: u64,
    /// Whether the thread has lines that it took and has not written.
    writing: bool,
}

impl Lines {
    /// Starts the thread that writes log lines to `out`. It has no end of its own.
    pub(super) fn write_to(&self, mut out: impl Write + Send + 'static) -> io::Result<()> {
        let lines = self.clone();
        let writing = move || {
            loop {
                let Batch { lines: batch, lost } = lines.take();
                if lost > 0 {
                    // Goes into the queue, which was emptied just now, and so to where the lost lines would stand.
                    tracing::warn!(
                        lost,
                        "{lost} log lines were lost: whoever reads them is too slow or stands still"
                    );
                }
                let unwritten = batch.iter().filter(|line| out.write_all(line).is_err()).count();
                lines.written(unwritten);
            }
        };
        std::thread::Builder::new().name("log".into()).spawn(writing).map(drop)
    }

    /// Waits until all is written, but no longer than this.
    pub fn flush(&self, within: Duration) {
        let unwritten = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        // Who reads nothing gets nothing.
        drop(self.0.changed.wait_timeout_while(self.lock(), within, unwritten));
    }

    /// Takes a line, unless there is no room for it: then it is lost, which is counted and told.
    pub fn push(&self, line: Vec<u8>) -> bool {
        let mut queue = self.lock();
        // However long it is, a line fits into an empty queue.
        if queue.bytes > 0 && queue.bytes + line.len() > MOST_BYTES {
            queue.lost += 1;
            return false;
        }
        queue.bytes += line.len();
        queue.lines.push(line);
        drop(queue);
        self.0.changed.notify_all();
        true
    }

    /// What waits. Waits itself until there is something.
    fn take(&self) -> Batch {
        let empty = |queue: &mut Queue| queue.lines.is_empty();
        let queue = self.0.changed.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        Self::empty(queue)
    }

    /// What waits. Waits itself until there is something, but no longer than this. Who takes a batch calls
    /// [`Self::written`] when it is written, or not.
    pub fn take_within(&self, patience: Duration) -> Batch {
        let empty = |queue: &mut Queue| queue.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.lock(), patience, empty);
        Self::empty(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn empty(mut queue: MutexGuard<'_, Queue>) -> Batch {
        queue.bytes = 0;
        queue.writing = true;
        Batch { lines: std::mem::take(&mut queue.lines), lost: std::mem::take(&mut queue.lost) }
    }

    /// What was taken is written, but for so many lines, which are lost.
    pub fn written(&self, but: usize) {
        let mut queue = self.lock();
        queue.writing = false;
        queue.lost += u64::try_from(but).unwrap_or(u64::MAX);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// A panic of somebody who held the lock left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that were taken out of the queue.
pub struct Batch {
    /// In their order.
    pub lines: Vec<Vec<u8>>,
    /// How many were lost after them.
    pub lost: u64,
}

/// Takes each event's text, which comes in one piece.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn said(lines: &Lines, line: &str) {
        (&mut &*lines).write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let lines = Lines::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        said(&lines, "before there is a thread\n");
        lines.write_to(ours).unwrap();
        said(&lines, "and after\n");
        lines.flush(PATIENCE);
        let mut read = [0; 35];
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(read.as_slice(), b"before there is a thread\nand after\n");
    }

    #[test]
    fn who_logs_does_not_wait_for_a_reader_and_neither_does_the_end() {
        let lines = Lines::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        lines.write_to(ours).unwrap();
        let line = "x".repeat(1023) + "\n";
        // Nobody reads: when pipe and queue are full, lines are lost. The writer may begin late, and take some along.
        while lines.lock().lost <= 1000 {
            said(&lines, &line);
        }
        lines.flush(Duration::from_millis(10));
        assert!(lines.lock().bytes <= MOST_BYTES);

        // Reading on brings out all that was kept.
        let reading = std::thread::spawn(move || {
            let mut read = vec![0; MOST_BYTES];
            theirs.read_exact(&mut read).map(|()| read)
        });
        let read = reading.join().unwrap().unwrap();
        assert!(read.chunks(1024).all(|read| read == line.as_bytes()));
    }

    #[test]
    fn a_line_that_is_longer_than_the_queue_is_written() {
        let lines = Lines::default();
        said(&lines, &"x".repeat(MOST_BYTES + 1));
        said(&lines, "y");
        let batch = lines.take();
        assert_eq!((batch.lines.len(), batch.lost), (1, 1));
    }
}
