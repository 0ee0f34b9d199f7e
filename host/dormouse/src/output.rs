//! What the process writes for people and machines, without ever waiting for who reads it.
//!
//! A reader that has gone (`| head`) or that stalls (a full log pipe) must neither end the process nor hold it: lines go
//! through a bounded queue to a thread of their own, and what does not fit is dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Writes that may wait for a stalled reader. At some hundred bytes each that is a megabyte or two.
const WAITING: usize = 4096;
/// Longest single write that is kept; the rest of it is cut. A log line is some hundred bytes.
const LONGEST: usize = 64 * 1024;
/// How long the end of the process waits for what is still to be written.
pub const FLUSH: Duration = Duration::from_millis(500);
/// Exit code when nobody reads the answer any more: what the shell shows for a process that SIGPIPE ended.
pub const CLOSED: u8 = 141;

enum Message {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

/// A stream that is written by a thread of its own.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    /// The same as `dropped`, for `/metrics`.
    counter: Counter,
}

impl Lines {
    /// Starts the thread. `to` may block and fail as it likes.
    pub fn start(to: impl Write + Send + 'static) -> Self {
        let (queue, waiting) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Counter::default();
        let lines = Self {
            queue,
            dropped: Arc::clone(&dropped),
            counter: counter.clone(),
        };
        let mut to = to;
        let write = move || {
            for message in waiting {
                match message {
                    Message::Text(text) => {
                        if to.write_all(&text).and_then(|()| to.flush()).is_err() {
                            // Nobody reads. What comes later may be read again, such as by a new log collector.
                            counter.inc();
                            continue;
                        }
                        let lost = dropped.swap(0, Ordering::Relaxed);
                        if lost > 0 {
                            let _ =
                                writeln!(to, "{lost} lines were dropped: the reader of this output stalled");
                        }
                    }
                    Message::Flush(done) => {
                        let _ = done.send(());
                    }
                }
            }
        };
        // Without the thread the queue has no reader, and every line counts as dropped.
        let _ = std::thread::Builder::new().name("output".to_owned()).spawn(write);
        lines
    }

    /// Takes a text to be written, or drops and counts it. Never waits.
    pub fn say(&self, text: &[u8]) {
        let text = match text.get(..LONGEST) {
            Some(most) if most.len() < text.len() => [most, b"...\n"].concat(),
            _ => text.to_vec(),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Message::Text(text))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.counter.inc();
        }
    }

    /// Waits until everything is written, so long at most.
    pub fn flush(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            // Called at the end of the process, outside of any runtime.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// One write of a log line.
#[derive(Clone)]
pub struct LogWriter(Lines);

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.say(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOG: OnceLock<Lines> = OnceLock::new();
static PROGRESS: OnceLock<Lines> = OnceLock::new();

fn log() -> &'static Lines {
    LOG.get_or_init(|| Lines::start(io::stderr()))
}

fn progress() -> &'static Lines {
    PROGRESS.get_or_init(|| Lines::start(io::stdout()))
}

/// Where log lines go.
pub fn log_writer() -> LogWriter {
    LogWriter(log().clone())
}

/// Registers the count of log lines that nobody took.
pub fn register(registry: &mut Registry) {
    registry.sub_registry_with_prefix("dormouse").register(
        "log_lines_dropped",
        "Log lines that were dropped because standard error stalled or was closed",
        log().counter.clone(),
    );
}

/// A line on standard output about how far the work is. The work goes on whether or not anybody reads it.
pub fn report(line: &str) {
    progress().say(format!("{line}\n").as_bytes());
}

/// [`report`], with the arguments of `format!`.
macro_rules! tell {
    ($($part:tt)*) => { $crate::output::report(&format!($($part)*)) };
}
pub(crate) use tell;

/// A line on standard error.
pub fn complain(line: &str) {
    log().say(format!("{line}\n").as_bytes());
}

/// Writes out what waits, and waits no longer than [`FLUSH`] for each stream.
pub fn flush() {
    for lines in [&PROGRESS, &LOG] {
        if let Some(lines) = lines.get() {
            lines.flush(FLUSH);
        }
    }
}

/// An answer on standard output: what the subcommand was called for.
///
/// # Errors
/// Those of writing; [`closed`] tells one that is no failure.
pub fn answer(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Whether an error only means that the reader of standard output has gone.
pub fn closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    /// Takes nothing before it may.
    struct Stalled {
        may: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if self.may.recv().is_err() {
                // Whoever held it back has gone: everything may pass.
            }
            self.taken.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn operator_02_a_stalled_reader_drops_lines_and_holds_nobody() {
        let (go, may) = channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::start(Stalled {
            may,
            taken: Arc::clone(&taken),
        });
        for number in 0..WAITING * 2 {
            lines.say(format!("line {number}\n").as_bytes());
        }
        // One is in the writer's hands, the queue is full, the rest is counted.
        let dropped = lines.counter.get();
        assert!(dropped >= (WAITING as u64) - 1, "{dropped}");
        drop(go);
        lines.flush(Duration::from_secs(30));
        lines.say(b"after\n");
        lines.flush(Duration::from_secs(30));
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "{text}");
        assert!(text.contains("lines were dropped"), "it says what is missing");
        assert!(text.ends_with("after\n"), "and goes on");
    }

    #[test]
    fn operator_02_a_closed_reader_is_counted_and_nothing_more() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::start(Gone);
        lines.say(b"one\n");
        lines.say(b"two\n");
        lines.flush(Duration::from_secs(30));
        assert_eq!(lines.counter.get(), 2);
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("the CRD");
        assert!(closed(&error));
        assert!(!closed(&anyhow::anyhow!("broken pipe")));
    }
}
