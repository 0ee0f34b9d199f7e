//! A suite as a process of its own, so that what two of them write at once can be told apart.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::outcome::Outcome;
use xtask_command::seconds;

/// How often a suite that takes long says how far it is.
const PROGRESS: Duration = Duration::from_secs(30);
/// How often a running suite is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What a suite has left behind may hold its output open; it is not waited for longer than this.
const END_OF_OUTPUT: Duration = Duration::from_secs(2);
/// How much a patient suite steps back. A compiler has many threads, and one thread of a test is to get its turn among them.
const NICE: i32 = 10;
/// Longest line that is shown as progress.
const LINE: usize = 110;

/// What came of the process of a suite.
pub struct Ended {
    pub outcome: Outcome,
    pub took: Duration,
    /// Processor time of everything that was waited for.
    pub cpu: Duration,
}

/// Starts suites and shows what they write.
pub struct Children {
    folder: PathBuf,
    /// Every line as it comes, instead of a line from time to time and everything of what failed.
    show: bool,
    /// Of the longest name.
    width: usize,
    screen: Arc<Mutex<()>>,
    interrupted: Arc<AtomicBool>,
}

impl Children {
    /// `folder` takes the logs and outcomes. From now on Ctrl-C and SIGTERM end the suites that run, and then this process; the second
    /// one ends this process at once.
    pub fn new(folder: &Path, show: bool, width: usize) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))?;
            flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            show,
            width,
            screen: Arc::default(),
            interrupted,
        })
    }

    /// Whether a signal has come.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// One line of our own.
    pub fn say(&self, text: &str) {
        let _screen = lock(&self.screen);
        eprintln!("{text}");
    }

    /// Runs one suite to its end. `patient`: it leaves the processors to others.
    pub fn run(&self, suite: &'static str, patient: bool) -> Ended {
        let start = Instant::now();
        let log = log(&self.folder, suite);
        let (outcome, cpu) = self
            .run_to_end(suite, patient, &log)
            .unwrap_or_else(|error| (Outcome::Failed(format!("{error:#}")), Duration::ZERO));
        let took = start.elapsed();
        let what = match &outcome {
            Outcome::Passed(_) | Outcome::Partly { .. } => format!("ok in {}", seconds(took)),
            Outcome::Skipped(why) => format!("skipped: {why}"),
            Outcome::Failed(why) => {
                if !self.show {
                    self.print(suite, &log);
                }
                format!("FAILED after {}: {why}", seconds(took))
            }
        };
        self.say(&format!("      {suite}: {what}"));
        Ended { outcome, took, cpu }
    }

    fn run_to_end(&self, suite: &'static str, patient: bool, log: &Path) -> Result<(Outcome, Duration)> {
        let (mut child, output) = self.start(suite, patient, log)?;
        let start = Instant::now();
        let pid = Pid::from_child(&child);
        let mut said = start;
        let mut asked_to_end = false;
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), ended)?.is_none() {
            std::thread::park_timeout(LOOK);
            if self.is_interrupted() && !std::mem::replace(&mut asked_to_end, true) {
                // It ends its own children and clusters.
                let _ = kill_process_group(pid, Signal::TERM);
            }
            if !self.show && said.elapsed() >= PROGRESS {
                said = Instant::now();
                let last = lock(&output.last).clone();
                self.say(&format!("      {suite}, {}: {last}", seconds(start.elapsed())));
            }
        }
        // Known as long as nobody has waited for it.
        let cpu = cpu_time(pid).unwrap_or_default();
        let status = child.wait()?;
        output.end();
        let file = outcome_file(&self.folder, suite);
        match fs::read(&file) {
            Ok(bytes) => Ok((serde_json::from_slice(&bytes)?, cpu)),
            Err(_) => Err(anyhow!("it ended without a result: {status}")),
        }
    }

    fn start(&self, suite: &'static str, patient: bool, log: &Path) -> Result<(Child, Output)> {
        let (reader, writer) = std::io::pipe()?;
        // Not by its path: it may be built anew while it runs.
        let own = Path::new("/proc/self/exe");
        let program = if own.exists() {
            own.to_owned()
        } else {
            std::env::current_exe()?
        };
        let mut command = Command::new(program);
        command.args(["run-suite", suite, "--folder"]).arg(&self.folder);
        if patient {
            command.arg("--patient");
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .context("cannot start this program again")?;
        // The command holds the other end of the pipe.
        drop(command);
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let label = self
            .show
            .then(|| format!("{suite:width$} | ", width = self.width));
        Ok((
            child,
            Output::follow(reader, file, label, Arc::clone(&self.screen)),
        ))
    }

    /// Everything that a suite has written.
    fn print(&self, suite: &str, log: &Path) {
        let text = fs::read(log).unwrap_or_default();
        let _screen = lock(&self.screen);
        eprintln!("\n--- what {suite} wrote ({}) ---", log.display());
        eprintln!("{}", String::from_utf8_lossy(&text).trim_end());
        eprintln!("--- end of what {suite} wrote ---\n");
    }
}

/// What a process writes, on its way to a file.
struct Output {
    last: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

impl Output {
    fn follow(
        reader: std::io::PipeReader,
        mut log: File,
        label: Option<String>,
        screen: Arc<Mutex<()>>,
    ) -> Self {
        let last = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&last);
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n') {
                let Ok(mut line) = line else { return };
                line.push(b'\n');
                // A full disk shows in the suites themselves.
                let _ = log.write_all(&line);
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end();
                if text.is_empty() {
                    continue;
                }
                *lock(&shown) = text.trim_start().chars().take(LINE).collect();
                if let Some(label) = &label {
                    let _screen = lock(&screen);
                    eprintln!("{label}{text}");
                }
            }
        });
        Self { last, thread }
    }

    fn end(self) {
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < END_OF_OUTPUT {
            std::thread::park_timeout(LOOK);
        }
    }
}

/// Where a suite's output goes.
pub fn log(folder: &Path, suite: &str) -> PathBuf {
    folder.join(format!("{suite}.log"))
}

/// Where a suite leaves what became of it.
fn outcome_file(folder: &Path, suite: &str) -> PathBuf {
    folder.join(format!("{suite}.json"))
}

/// In the process of a suite: it ends with the one that started it, and leaves the outcome for it.
pub fn inside(folder: &Path, suite: &str, patient: bool, work: impl FnOnce() -> Outcome) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    if patient {
        rustix::process::nice(NICE)?;
    }
    let outcome = work();
    let file = outcome_file(folder, suite);
    fs::write(&file, serde_json::to_vec(&outcome)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Processor time of a process that has ended, and of all that it waited for.
fn cpu_time(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // proc(5): utime, stime, cutime and cstime are the fields 14 to 17; the second one, in brackets, may hold spaces.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks * 1000 / per_second))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_goes_to_the_log_and_its_last_line_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let (reader, mut writer) = std::io::pipe().unwrap();
        let output = Output::follow(reader, File::create(&file).unwrap(), None, Arc::default());
        writer.write_all(b"one\n  two\n\nno end of line").unwrap();
        drop(writer);
        let last = Arc::clone(&output.last);
        output.end();
        assert_eq!(*lock(&last), "no end of line");
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            "one\n  two\n\nno end of line\n"
        );
    }

    #[test]
    fn processor_time_of_an_ended_process_is_known() {
        let mut child = Command::new("sh").args(["-c", "exit 0"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(cpu_time(pid).is_some());
        child.wait().unwrap();
    }
}
