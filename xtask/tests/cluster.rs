//! A cluster works, and nothing of it stays behind, however it ends.
//!
//! These tests start real clusters, so they need what `cargo xtask cluster doctor` lists and are left out unless asked for:
//! `cargo xtask test cluster`. Each looks at the machine itself and does not ask the program under test whether it has
//! cleaned up.
#![expect(clippy::unwrap_used, reason = "a helper that fails has failed the test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const WORKLOAD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: dormouse.test/busybox:1
        command: [httpd, -f, -v, -p, '8080', -h, /www]
        securityContext:
          runAsUser: 65532
          runAsNonRoot: true
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
          seccompProfile: {type: RuntimeDefault}
        resources: {limits: {memory: 64Mi}}
        volumeMounts:
        - {name: page, mountPath: /www}
        - {name: memory, mountPath: /memory}
        - {name: disk, mountPath: /disk}
      volumes:
      - {name: page, configMap: {name: page}}
      - {name: memory, emptyDir: {medium: Memory}}
      - {name: disk, emptyDir: {}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// One cluster under test, by name.
struct Subject {
    name: String,
}

impl Subject {
    fn new(name: &str) -> Self {
        Self {
            name: format!("{name}-{}", std::process::id()),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(["cluster", "--name", &self.name])
            .args(args)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed and returns what it printed.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Begins an `up` that something will happen to.
    fn begin(&self) -> Child {
        self.command(&["up"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn state(&self) -> PathBuf {
        let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
            PathBuf::from,
        );
        cache.join("dormouse/cluster/run").join(&self.name)
    }

    fn pid(&self, component: &str) -> i32 {
        let text = fs::read_to_string(self.state().join("pids").join(component)).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// Every process in the cluster's pid namespaces (those of containers are below the keeper's) or its network.
    fn processes(&self) -> BTreeSet<i32> {
        let network = fs::metadata(format!("/run/netns/dormouse-{}", self.name))
            .map(|metadata| format!("net:[{}]", metadata.ino()))
            .unwrap_or_default();
        let mut found = all()
            .into_iter()
            .filter(|pid| link(*pid, "net") == network)
            .collect::<BTreeSet<_>>();
        loop {
            let children = all()
                .into_iter()
                .filter(|pid| parent(*pid).is_some_and(|parent| found.contains(&parent)))
                .filter(|pid| !found.contains(pid))
                .collect::<Vec<_>>();
            if children.is_empty() {
                return found;
            }
            found.extend(children);
        }
    }

    /// What is visible of it anywhere on this machine.
    fn traces(&self) -> Vec<String> {
        let marks = [
            format!("dormouse-{}", self.name),
            format!("cluster/run/{}", self.name),
        ];
        let mut found = Vec::new();
        for pid in all() {
            for file in ["mountinfo", "cgroup", "cmdline"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                if let Some(mark) = marks.iter().find(|mark| text.contains(mark.as_str())) {
                    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    let command = String::from_utf8_lossy(&command).replace('\0', " ");
                    found.push(format!("{mark} in /proc/{pid}/{file} of {command}"));
                }
            }
        }
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup"), PathBuf::from("/run/netns")];
        folders.extend(
            fs::read_dir("/sys/fs/cgroup")
                .unwrap()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
        for folder in folders {
            let path = folder.join(&marks[0]);
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        if self.state().exists() {
            found.push(self.state().display().to_string());
        }
        found
    }

    fn assert_gone(&self) {
        // Kernel objects go a moment after their last user.
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.traces().is_empty() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        assert_eq!(self.traces(), Vec::<String>::new());
    }

    fn apply(&self, manifest: &str) {
        let mut child = self
            .command(&["kubectl", "apply", "--filename", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn start_workload(&self) {
        self.apply(WORKLOAD);
        self.run(&["kubectl", "rollout", "status", "deployment/web", "--timeout=60s"]);
    }
}

/// A failed test must not leave a cluster either.
impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
    }
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn all() -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn link(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}"))
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_else(|_| "none".to_owned())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn kill(signal: &str, pid: i32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "starts a real cluster"]
fn pods_reach_each_other_by_name_and_nothing_stays_behind() {
    let cluster = Subject::new("works");
    cluster.run(&["up"]);
    cluster.start_workload();

    // From a pod by name, from the node by address, through the API server's connection to the kubelet.
    let page = cluster.run(&[
        "kubectl",
        "exec",
        "deployment/web",
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        "http://web",
    ]);
    assert_eq!(page, "hello");
    let address = cluster.run(&[
        "kubectl",
        "get",
        "service",
        "web",
        "--output=jsonpath={.spec.clusterIP}",
    ]);
    let page = cluster.run(&[
        "exec",
        "--",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        &format!("http://{address}"),
    ]);
    assert_eq!(page, "hello");
    let name = "kubernetes.default.svc.cluster.local";
    let answer = cluster.run(&["kubectl", "exec", "deployment/web", "--", "nslookup", name]);
    assert!(answer.contains("10.96.0.1"), "{answer}");
    let outside = cluster
        .command(&[
            "kubectl",
            "exec",
            "deployment/web",
            "--",
            "nslookup",
            "example.com",
        ])
        .output()
        .unwrap();
    assert!(both(&outside).contains("NXDOMAIN"), "{}", both(&outside));
    let log = cluster.run(&["kubectl", "logs", "--selector=app=web", "--prefix=false"]);
    assert!(log.contains("response:200"), "{log}");

    // Everything that the chart's tests rely on.
    let refused = cluster
        .command(&[
            "kubectl",
            "--as=system:serviceaccount:default:default",
            "get",
            "nodes",
        ])
        .output()
        .unwrap();
    assert!(both(&refused).contains("forbidden"), "{}", both(&refused));
    let audit = fs::read_to_string(cluster.state().join("logs/audit.log")).unwrap();
    assert!(audit.contains("\"username\":\"system:serviceaccount:default:default\""));
    cluster.run(&[
        "kubectl",
        "label",
        "namespace",
        "default",
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    let privileged = cluster
        .command(&[
            "kubectl",
            "run",
            "p",
            "--privileged",
            "--image=dormouse.test/busybox:1",
        ])
        .output()
        .unwrap();
    assert!(
        both(&privileged).contains("violates PodSecurity"),
        "{}",
        both(&privileged)
    );

    // A component that is restarted is another process, and the pods do not notice.
    let before = cluster.pid("kube-apiserver");
    let start = Instant::now();
    cluster.run(&["restart", "kube-apiserver"]);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_ne!(cluster.pid("kube-apiserver"), before);
    let page = cluster.run(&[
        "exec",
        "--",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        &format!("http://{address}"),
    ]);
    assert_eq!(page, "hello");
    cluster.run(&["status"]);

    // With a command of the user's still running in it.
    let mut forgotten = cluster.command(&["exec", "--", "sleep", "1000"]).spawn().unwrap();
    let processes = cluster.processes();
    assert!(processes.len() > 20, "{processes:?}");
    cluster.run(&["down"]);
    forgotten.wait().unwrap();
    let left = processes
        .iter()
        .filter(|pid| Path::new(&format!("/proc/{pid}/exe")).exists());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<&i32>::new());
    cluster.assert_gone();
    let again = cluster.run(&["down"]);
    assert!(again.contains("nothing of it is on this machine"), "{again}");
}

#[test]
#[ignore = "starts a real cluster"]
fn up_that_is_killed_at_any_moment_is_cleaned_up() {
    let cluster = Subject::new("killed");
    for milliseconds in [20, 60, 100, 150, 250, 500, 1_000, 2_500, 4_500, 6_000] {
        let mut up = cluster.begin();
        std::thread::park_timeout(Duration::from_millis(milliseconds));
        up.kill().unwrap();
        up.wait().unwrap();
        cluster.run(&["down"]);
        cluster.assert_gone();
    }
}

#[test]
#[ignore = "starts a real cluster"]
fn up_that_is_interrupted_cleans_up_by_itself() {
    let cluster = Subject::new("signal");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        for milliseconds in [120, 400, 3_000] {
            let mut up = cluster.begin();
            std::thread::park_timeout(Duration::from_millis(milliseconds));
            kill(signal, up.id().cast_signed());
            let status = up.wait().unwrap();
            // A signal that comes before there is anything to clean up ends the process as ever.
            let ended = status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal));
            assert_eq!(ended, Some(code), "{signal} after {milliseconds} ms");
            cluster.assert_gone();
        }
    }
}

#[test]
#[ignore = "starts a real cluster"]
fn a_cluster_that_crashed_is_replaced() {
    let cluster = Subject::new("crash");
    cluster.run(&["up"]);
    cluster.start_workload();
    for victim in ["containerd", "keeper"] {
        let first = cluster.pid("keeper");
        kill("-KILL", cluster.pid(victim));
        std::thread::park_timeout(Duration::from_millis(500));
        let status = cluster.command(&["status"]).output().unwrap();
        assert!(!status.status.success(), "{}", both(&status));
        cluster.run(&["up"]);
        assert_ne!(cluster.pid("keeper"), first);
        cluster.run(&["status"]);
        cluster.start_workload();
    }
    // And one that works is left as it is.
    let keeper = cluster.pid("keeper");
    let again = cluster.run(&["up"]);
    assert!(again.contains("runs already"), "{again}");
    assert_eq!(cluster.pid("keeper"), keeper);
    cluster.run(&["down"]);
    cluster.assert_gone();
}

#[test]
#[ignore = "starts a real cluster"]
fn two_clusters_do_not_see_each_other() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    one.run(&["up"]);
    two.run(&["up"]);
    one.start_workload();
    let pods = two.run(&["kubectl", "get", "pods", "--output=name"]);
    assert_eq!(pods, "");
    two.start_workload();
    // The other goes; this one keeps its pods and its network.
    two.run(&["down"]);
    two.assert_gone();
    let page = one.run(&[
        "kubectl",
        "exec",
        "deployment/web",
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        "http://web",
    ]);
    assert_eq!(page, "hello");
    one.run(&["status"]);
    one.run(&["down"]);
    one.assert_gone();
}

#[test]
fn an_existing_cluster_is_neither_started_nor_ended() {
    let subject = Subject::new("foreign");
    for (args, said) in [
        (vec!["up"], "nothing to bring up"),
        (vec!["down"], "not ours to bring down"),
        (vec!["restart", "etcd"], "not ours to restart"),
        (vec!["load-image", "archive.tar"], "kind load image-archive"),
    ] {
        let output = subject
            .command(&args)
            .env("KUBECONFIG", "/kubeconfig/of/another/cluster")
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(both(&output).contains(said), "{}", both(&output));
    }
    let output = subject
        .command(&["exec", "--", "sh", "-c", "echo $KUBECONFIG"])
        .env("KUBECONFIG", "/kubeconfig/of/another/cluster")
        .output()
        .unwrap();
    assert_eq!(both(&output), "/kubeconfig/of/another/cluster\n");
}
