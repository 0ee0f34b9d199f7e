//! Processes by pid and start time, so that a number that the kernel gave to somebody else meanwhile is never
//! signalled, and the views of /proc that say what belongs to a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process, for ever: the pid and the time at which it started, in clock ticks since the machine booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        // A zombie has ended; it only waits for its parent to notice.
        (!stat.zombie).then_some(Self {
            pid,
            started: stat.started,
        })
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// How long it has run.
    pub fn age(self) -> Option<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime = uptime.split_whitespace().next()?.parse::<f64>().ok()?;
        // Linux shows ticks of 1/100 s to user space on every architecture that Rust supports.
        Some(Duration::from_secs_f64(
            (uptime - self.started as f64 / 100.0).max(0.0),
        ))
    }

    /// Sends a signal to exactly this process. Says whether it was there.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(false);
        };
        // The descriptor pins the process; only then is the start time compared.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(false);
        };
        if !self.alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&descriptor, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot send {signal:?} to process {}", self.pid))
            }
        }
    }

    /// Waits until it has ended. Says whether it has.
    pub fn ended_within(self, limit: Duration) -> bool {
        eventually(limit, || !self.alive())
    }

    /// Reads what [`Process::write`] wrote. A file that a crash cut short counts as absent.
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
        })
    }

    /// Records it in a file, all or nothing.
    pub fn write(self, file: &Path) -> Result<()> {
        write_atomically(file, format!("{} {}\n", self.pid, self.started).as_bytes())
    }

    /// The name of its program, for messages.
    pub fn name(self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.pid))
            .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
    }
}

/// What is needed of `/proc/<pid>/stat`.
struct Stat {
    parent: i32,
    started: u64,
    zombie: bool,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): the second field is the name in parentheses and may hold anything, parentheses included.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields = rest.split_whitespace().collect::<Vec<_>>();
        Some(Self {
            zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Every pid of this machine.
pub fn all() -> Vec<i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The only child of a process, once it has one.
pub fn child_of(parent: i32) -> Option<Process> {
    all()
        .into_iter()
        .find(|pid| Stat::read(*pid).is_some_and(|stat| stat.parent == parent))
        .and_then(Process::of)
}

/// Which namespace of one kind (`net`, `pid`, `mnt`) a process is in, such as `net:[4026532281]`.
pub fn namespace(pid: i32, kind: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}"))
        .ok()
        .map(|link| link.to_string_lossy().into_owned())
}

/// Every process in a namespace.
pub fn in_namespace(kind: &str, namespace_name: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|pid| namespace(*pid, kind).as_deref() == Some(namespace_name))
        .filter_map(Process::of)
        .collect()
}

/// Writes a file so that a reader sees the old content or the new one, and a crash leaves no half of it.
pub fn write_atomically(file: &Path, content: &[u8]) -> Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, content)
        .and_then(|()| fs::rename(&temporary, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Asks every 20 ms until the answer is yes or the time is up.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Asks a process to end, insists after a while, and fails if it is there even so.
pub fn end(process: Process, grace: Duration) -> Result<()> {
    if process.signal(Signal::TERM)? && !process.ended_within(grace) {
        process.signal(Signal::KILL)?;
        if !process.ended_within(Duration::from_secs(10)) {
            bail!("process {} ({}) does not end", process.pid, process.name());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_read() {
        let fields = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::parse(&format!("17 (a) b (c)) S 1 {}", &fields[2..])).unwrap();
        assert_eq!((stat.parent, stat.zombie, stat.started), (1, false, 22));
    }

    #[test]
    fn a_recycled_pid_is_not_signalled() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let real = Process::of(child.id().cast_signed()).unwrap();
        let earlier = Process {
            started: real.started - 1,
            ..real
        };
        assert!(!earlier.signal(Signal::KILL).unwrap());
        assert!(real.alive());
        assert!(real.signal(Signal::KILL).unwrap());
        assert!(real.ended_within(Duration::from_secs(10)));
        child.wait().unwrap();
        assert!(!real.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn what_was_recorded_is_read_back() {
        let file = std::env::temp_dir().join(format!("dormouse-xtask-process-{}", std::process::id()));
        let me = Process::of(std::process::id().cast_signed()).unwrap();
        me.write(&file).unwrap();
        assert_eq!(Process::read(&file), Some(me));
        fs::write(&file, "12").unwrap();
        assert_eq!(Process::read(&file), None);
        fs::remove_file(&file).unwrap();
    }
}
