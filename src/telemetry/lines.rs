//! Log lines on their way to stderr, written by a thread of their own.
//!
//! Nobody who logs ever waits for who reads: a full pipe would stop the keeper, and so every caller. What doesn't fit is
//! lost, and how much was is told as soon as somebody reads on.

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
pub(super) struct Lines(Arc<Shared>);

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
    /// Starts the thread that writes to `out`. It has no end of its own.
    pub(super) fn write_to(&self, mut out: impl Write + Send + 'static) -> io::Result<()> {
        let lines = self.clone();
        let writing = move || {
            loop {
                let (batch, lost) = lines.take();
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
    pub(super) fn flush(&self, within: Duration) {
        let unwritten = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        // Who reads nothing gets nothing.
        drop(self.0.changed.wait_timeout_while(self.lock(), within, unwritten));
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        // However long it is, a line fits into an empty queue.
        if queue.bytes > 0 && queue.bytes + line.len() > MOST_BYTES {
            queue.lost += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push(line.to_vec());
        drop(queue);
        self.0.changed.notify_all();
    }

    /// What waits, and how many lines were lost after it. Waits itself until there is something.
    fn take(&self) -> (Vec<Vec<u8>>, u64) {
        let empty = |queue: &mut Queue| queue.lines.is_empty();
        let mut queue = self.0.changed.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        queue.bytes = 0;
        queue.writing = true;
        (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.lost))
    }

    fn written(&self, but: usize) {
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

/// Takes each event's text, which comes in one piece.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
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
        let (batch, lost) = lines.take();
        assert_eq!((batch.len(), lost), (1, 1));
    }
}
