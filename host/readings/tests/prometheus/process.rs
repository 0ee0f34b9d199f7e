//! A Prometheus process on loopback, ended with the value that stands for it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::authority::{Authority, Identity};

/// User and password, and what Prometheus keeps of the password.
pub const USER: &str = "dormouse";
pub const PASSWORD: &str = "correct horse";
const PASSWORD_HASH: &str = "$2b$04$S9aTeMc8E7cYW631ylpSY.jvXy/ABkHQexkNjjb1Vshsah8U4XO.6";

/// It replays an empty log at start, which takes a second on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The program, if it is installed.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("prometheus"))
        .find(|program| program.is_file())
}

pub struct Process {
    pub folder: tempfile::TempDir,
    pub port: u16,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Process {
    /// Starts it with TLS and basic authentication, scraping `target` (host and port) every half second.
    pub async fn start(program: &Path, authority: &Authority, target: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("password"), PASSWORD).unwrap();
        std::fs::write(path("ca.pem"), authority.pem()).unwrap();
        write_identity(folder.path(), &authority.signs(&["127.0.0.1"]));
        let web = format!(
            "tls_server_config: {{cert_file: tls.crt, key_file: tls.key}}\nbasic_auth_users: {{{USER}: '{PASSWORD_HASH}'}}\n"
        );
        std::fs::write(path("web.yaml"), web).unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}\nscrape_configs:\n\
             - {{job_name: shop, static_configs: [{{targets: ['{target}'], labels: {{namespace: shop, app: web}}}}]}}\n"
        );
        std::fs::write(path("prometheus.yaml"), config).unwrap();
        // Free a moment ago; whoever takes it in between makes the start fail, and the test with it.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new(program)
            .current_dir(folder.path())
            .arg("--config.file=prometheus.yaml")
            .arg("--web.config.file=web.yaml")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--storage.tsdb.path=data")
            .args(["--query.timeout=5s", "--log.level=warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Self { folder, port, child };
        process.until_it_listens().await;
        process
    }

    async fn until_it_listens(&mut self) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .is_err()
        {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < START,
                "prometheus did not start: {}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn stop(&mut self) {
        // Exactly the process that was started here; that it has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both files, each in one step.
pub fn write_identity(folder: &Path, identity: &Identity) {
    write(&folder.join("tls.crt"), &identity.certificate);
    write(&folder.join("tls.key"), &identity.key);
}

pub fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}
