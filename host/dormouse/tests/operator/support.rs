//! A process of the binary, and API servers that do not answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far beyond every limit of a process that has not come up: a machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The binary, without anything of this environment.
pub fn dormouse(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// A running process, ended with the test.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).unwrap();
    }

    /// Its end; a process that does not end fails the test.
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn take_stderr(&mut self) -> impl Read + use<> {
        self.0.stderr.take().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Nobody listens.
    Refuses,
    /// It accepts and says nothing.
    Silent,
    /// It begins its answers and does not go on.
    Hangs,
}

/// A kubeconfig for such a server. The receiver hears of each connection.
pub struct Server {
    pub kubeconfig: PathBuf,
    pub asked: Receiver<()>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start(api: Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = channel();
        if api == Api::Refuses {
            drop(listener);
        } else {
            std::thread::spawn(move || {
                let mut kept: Vec<TcpStream> = Vec::new();
                for client in listener.incoming() {
                    let Ok(mut client) = client else { return };
                    if api == Api::Hangs {
                        let begun = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{\"kind\":";
                        let _ = client.write_all(begun.as_bytes());
                    }
                    kept.push(client);
                    let _ = tell.send(());
                }
            });
        }
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: a, clusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}], \
             users: [{{name: a, user: {{}}}}], contexts: [{{name: a, context: {{cluster: a, user: a}}}}]}}"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        Self {
            kubeconfig,
            asked,
            _folder: folder,
        }
    }
}

/// Reads lines until one contains `part`. What follows is read and forgotten, so that the writer never stalls.
pub fn until_said(reader: impl Read + Send + 'static, part: &'static str) {
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if line.contains(part) {
                let _ = tell.send(());
            }
        }
    });
    heard.recv_timeout(PATIENCE).unwrap();
}
