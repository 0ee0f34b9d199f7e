//! Running commands so that people see what happens, how long it takes, and what to do when it fails.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

/// What `cargo run` sets for this program but must not reach the cargo that it starts: build scripts would see the
/// package `xtask`.
const OURS: &[&str] = &[
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
    "CARGO_PKG_AUTHORS",
    "CARGO_PKG_DESCRIPTION",
    "CARGO_PKG_HOMEPAGE",
    "CARGO_PKG_LICENSE",
    "CARGO_PKG_LICENSE_FILE",
    "CARGO_PKG_README",
    "CARGO_PKG_REPOSITORY",
    "CARGO_PKG_RUST_VERSION",
    "OUT_DIR",
];

/// Lines of the output of a command that failed.
const SHOWN: usize = 100;

/// Announces numbered steps and says how long each took.
pub struct Steps {
    begun: usize,
    total: usize,
}

impl Steps {
    /// `total` steps are to come.
    pub fn new(total: usize) -> Self {
        Self { begun: 0, total }
    }

    /// Announces and times one step.
    pub fn run<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.announce(what);
        let start = Instant::now();
        let value = work()?;
        eprintln!("      done in {}", seconds(start.elapsed()));
        Ok(value)
    }

    /// Announces a step that does not come back, or that says itself how it went.
    pub fn announce(&mut self, what: &str) {
        self.begun += 1;
        eprintln!("\n[{}/{}] {what}", self.begun, self.total);
    }
}

/// A span as people read it.
pub fn seconds(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", span.as_secs() / 60, span.as_secs() % 60)
    }
}

/// A command, shown before it runs and repeated in full when it fails.
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(String, OsString)>,
    removed: Vec<&'static str>,
    dir: Option<PathBuf>,
    hint: Option<String>,
    clean_env: bool,
    deadline: Option<Duration>,
}

impl Cmd {
    /// A program from the PATH, or by its path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            removed: Vec::new(),
            dir: None,
            hint: None,
            clean_env: false,
            deadline: None,
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable, beside those that it inherits.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Takes a variable out of what the command inherits.
    pub fn without_env(mut self, name: &'static str) -> Self {
        self.removed.push(name);
        self
    }

    /// Where it runs.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// What to do when it fails.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// It inherits no variable at all.
    pub fn clean_env(mut self) -> Self {
        self.clean_env = true;
        self
    }

    /// It is ended after this long.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Runs it with our own output.
    pub fn run(self) -> Result<()> {
        eprintln!("      $ {}", self.short());
        let mut child = self.command().spawn().map_err(|error| self.not_started(&error))?;
        let status = match self.deadline {
            None => child.wait()?,
            Some(deadline) => match wait_until(&mut child, Instant::now() + deadline)? {
                Some(status) => status,
                None => {
                    end(&mut child)?;
                    return Err(self.failed(&format!("not finished after {}", seconds(deadline))));
                }
            },
        };
        if status.success() {
            Ok(())
        } else {
            Err(self.failed(&format!("{status}")))
        }
    }

    /// Runs it with our own stderr and returns what it wrote to stdout: for commands that take long and say how far they are.
    pub fn stdout(self) -> Result<String> {
        eprintln!("      $ {}", self.short());
        let output = self
            .command()
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| self.not_started(&error))?;
        if !output.status.success() {
            return Err(self.failed(&format!("{}", output.status)));
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{}` did not write UTF-8", self.short()))
    }

    /// Runs it and returns what it wrote to stdout.
    pub fn output(self) -> Result<String> {
        let output = self
            .command()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| self.not_started(&error))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let stdout = String::from_utf8_lossy(&output.stdout);
            // A test says on its output what it found.
            let lines: Vec<&str> = stdout.lines().collect();
            let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
            return Err(self.failed(&format!("{}\n{last}\n{}", output.status, stderr.trim_end())));
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{}` did not write UTF-8", self.short()))
    }

    /// Whether it can be run and succeeds; its output is thrown away.
    pub fn succeeds(&self) -> bool {
        self.command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Becomes that program, so that Ctrl-C reaches it and nobody else.
    pub fn replace_this_process(self) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        eprintln!("      $ {}", self.short());
        let error = self.command().exec();
        Err(self.not_started(&error))
    }

    /// The same without a word of our own, for commands whose output people pipe.
    pub fn hand_over(self) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        let error = self.command().exec();
        Err(self.not_started(&error))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if self.clean_env {
            command.env_clear();
        }
        for name in OURS.iter().chain(&self.removed) {
            command.env_remove(name);
        }
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Without folder and environment.
    fn short(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// So that it can be pasted into a shell.
    fn in_full(&self) -> String {
        let mut text = String::new();
        if let Some(dir) = &self.dir {
            text.push_str(&format!("cd {} && ", quoted(dir.as_os_str())));
        }
        for (name, value) in &self.envs {
            text.push_str(&format!("{name}={} ", quoted(value)));
        }
        text + &self.short()
    }

    fn not_started(&self, error: &std::io::Error) -> anyhow::Error {
        anyhow!(
            "cannot start `{}`: {error}{}",
            self.program.to_string_lossy(),
            self.advice()
        )
    }

    fn failed(&self, how: &str) -> anyhow::Error {
        anyhow!(
            "this command failed ({how}):\n    {}{}",
            self.in_full(),
            self.advice()
        )
    }

    fn advice(&self) -> String {
        self.hint
            .as_ref()
            .map(|hint| format!("\nwhat to do: {hint}"))
            .unwrap_or_default()
    }
}

/// Waits for a child, but not for ever.
fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Asks a child to end, so that it can end its own children; then insists.
fn end(child: &mut Child) -> Result<()> {
    let _ = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    if wait_until(child, Instant::now() + Duration::from_secs(10))?.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_whole_command_and_what_to_do() {
        let error = Cmd::new("sh")
            .args(["-c", "exit 3"])
            .env("A", "b c")
            .dir(Path::new("/"))
            .hint("try again")
            .run()
            .unwrap_err()
            .to_string();
        assert!(error.contains("cd / && A='b c' sh -c 'exit 3'"), "{error}");
        assert!(error.contains("3"), "{error}");
        assert!(error.ends_with("what to do: try again"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let start = Instant::now();
        let error = Cmd::new("sleep")
            .arg("60")
            .deadline(Duration::from_millis(10))
            .run()
            .unwrap_err()
            .to_string();
        assert!(error.contains("not finished after"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("no-such-program")
            .hint("install it")
            .run()
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot start `no-such-program`"), "{error}");
        assert!(error.contains("install it"), "{error}");
    }

    #[test]
    fn the_package_of_xtask_does_not_leak() {
        let text = Cmd::new("sh")
            .args(["-c", "echo \"[${CARGO_PKG_NAME-}]\""])
            .output()
            .unwrap();
        assert_eq!(text, "[]\n");
    }
}
