//! Containers with a `command`: real processes on this machine, each the head of its own process group.
//!
//! They get PATH, HOME, TMPDIR and the container's `env`, nothing else of this process's environment. They are ended by
//! process id: SIGTERM to the group, SIGKILL when the grace period is over or the cluster goes away.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::core::Core;
use crate::options::OutputLine;
use crate::value::{annotation, at, label, list_at, name_of, namespace_of, str_at};

/// One running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
}

/// `$(NAME)` as Kubernetes expands it; `$$(NAME)` stays `$(NAME)` and unknown names stay as they are.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(i) = rest.find('$') {
        out.push_str(&rest[..i]);
        rest = &rest[i..];
        if let Some(tail) = rest.strip_prefix("$$") {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = rest.strip_prefix("$(").and_then(|t| t.split_once(')')) {
            match env.get(name) {
                Some(v) => out.push_str(v),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// The downward API: a field of the pod as text.
fn field(pod: &Value, path: &str) -> Option<String> {
    let quoted = |prefix: &str| path.strip_prefix(prefix).and_then(|p| p.strip_suffix("']"));
    if let Some(key) = quoted("metadata.annotations['") {
        return Some(annotation(pod, key).unwrap_or("").to_owned());
    }
    if let Some(key) = quoted("metadata.labels['") {
        return Some(label(pod, key).unwrap_or("").to_owned());
    }
    match at(pod, path) {
        Some(Value::String(s)) => Some(s.clone()),
        Some(other) => Some(other.to_string()),
        None => None,
    }
}

fn environment(pod: &Value, container: &Value) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for e in list_at(container, "env") {
        let name = str_at(e, "name").unwrap_or("").to_owned();
        let value = match str_at(e, "valueFrom.fieldRef.fieldPath") {
            Some(path) => field(pod, path).unwrap_or_default(),
            None => expand(str_at(e, "value").unwrap_or(""), &env),
        };
        env.insert(name, value);
    }
    env
}

impl Process {
    /// Starts the container. `extra` is added to its environment. The error is the message of the waiting state.
    pub fn start(
        core: &Arc<Core>,
        pod: &Value,
        container: &Value,
        extra: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut env = environment(pod, container);
        env.extend(extra.iter().map(|(k, v)| (k.clone(), v.clone())));
        let mut words: Vec<String> = Vec::new();
        for k in ["command", "args"] {
            words.extend(
                list_at(container, k)
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|s| expand(s, &env)),
            );
        }
        let Some((program, args)) = words.split_first() else {
            return Err("no command".into());
        };
        let mut c = Command::new(program);
        c.args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        c.process_group(0).kill_on_drop(true);
        for k in ["PATH", "HOME", "TMPDIR"] {
            if let Some(v) = std::env::var_os(k) {
                c.env(k, v);
            }
        }
        c.envs(&env);
        if let Some(d) = str_at(container, "workingDir").filter(|d| !d.is_empty()) {
            c.current_dir(d);
        }
        let mut child = c.spawn().map_err(|e| format!("failed to start {program}: {e}"))?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(out) = child.stdout.take() {
            follow(core, pod, container, false, out);
        }
        if let Some(err) = child.stderr.take() {
            follow(core, pod, container, true, err);
        }
        Ok(Process { child, group })
    }

    /// Waits for the process to end; its exit code, or 128 and the signal.
    pub async fn ended(&mut self) -> i64 {
        match self.child.wait().await {
            Ok(status) => {
                // Whatever it left behind in its group goes with it.
                self.signal(Signal::KILL);
                self.group = None;
                code(status)
            }
            Err(_) => -1,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(g) = self.group {
            // The group may be gone already.
            let _ = kill_process_group(g, signal);
        }
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn code(status: ExitStatus) -> i64 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .map_or_else(|| 128 + i64::from(status.signal().unwrap_or(0)), i64::from)
}

fn follow(
    core: &Arc<Core>,
    pod: &Value,
    container: &Value,
    stderr: bool,
    from: impl AsyncRead + Unpin + Send + 'static,
) {
    let mut line = OutputLine {
        namespace: namespace_of(pod).to_owned(),
        pod: name_of(pod).to_owned(),
        container: str_at(container, "name").unwrap_or("").to_owned(),
        stderr,
        text: String::new(),
    };
    let core = core.clone();
    core.clone().tasks.spawn(async move {
        let mut lines = BufReader::new(from).lines();
        loop {
            tokio::select! {
                next = lines.next_line() => match next {
                    Ok(Some(text)) => {
                        line.text = text;
                        core.output.line(&line);
                    }
                    _ => return,
                },
                // A grandchild that left the group may hold the pipe open.
                () = core.shutdown.cancelled() => return,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x-$(A)-$(B)-$$(A)-$A", &env), "x-1-$(B)-$(A)-$A");
    }
}
