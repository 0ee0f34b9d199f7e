//! What the tests run: built once, from one selection of packages, and then started without asking cargo again.
//!
//! With another selection cargo would unify features in another way and compile the whole dependency tree, Wasmtime included, a
//! second time. And whoever asks cargo waits for its lock on the target folder, which a build in another lane may hold for
//! minutes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::workspace::{Profile, Workspace};
use xtask_command::Cmd;

/// One executable that holds tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestProgram {
    /// The target, such as `lifecycle`; for unit tests that of the library or program.
    pub target: String,
    /// `lib`, `bin`, `test`.
    pub kind: String,
    /// The folder of its package, in which it must be started.
    pub folder: PathBuf,
    /// The executable.
    pub file: PathBuf,
}

impl TestProgram {
    /// Starts it as `cargo test` does.
    pub fn command(&self, workspace: &Workspace) -> Cmd {
        Cmd::new(&self.file)
            .dir(&self.folder)
            .env("CARGO_TARGET_DIR", workspace.target())
            .env("DORMOUSE_PLUGINS_DIR", workspace.plugins())
    }
}

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tests(Vec<TestProgram>);

impl Tests {
    /// All unit and integration tests of the workspace.
    pub const ALL: [&str; 3] = ["--lib", "--bins", "--tests"];

    /// Builds tests of the workspace: those of the targets that the flags of cargo name.
    pub fn build(workspace: &Workspace, targets: &[&str]) -> Result<Self> {
        let messages = workspace
            .cargo("test")
            .args(["--workspace", "--all-features", "--no-run"])
            .args(targets)
            .arg("--message-format=json-render-diagnostics")
            .hint("the compiler's message is above; if a download failed, check the network and run it again")
            .stdout()?;
        let tests = Self::of(&messages);
        if tests.0.is_empty() {
            bail!("cargo does not say which tests it has built");
        }
        Ok(tests)
    }

    /// From cargo's messages.
    fn of(messages: &str) -> Self {
        let program = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_test = message["reason"] == "compiler-artifact"
                && message["profile"]["test"].as_bool() == Some(true);
            let manifest = Path::new(message["manifest_path"].as_str()?);
            Some(TestProgram {
                target: message["target"]["name"].as_str()?.to_owned(),
                kind: message["target"]["kind"][0].as_str()?.to_owned(),
                folder: manifest.parent()?.to_owned(),
                file: message["executable"].as_str().filter(|_| is_test)?.into(),
            })
        };
        Self(messages.lines().filter_map(program).collect())
    }

    /// In the order in which cargo built them.
    pub fn iter(&self) -> impl Iterator<Item = &TestProgram> {
        self.0.iter()
    }

    /// That of an integration test.
    pub fn find(&self, target: &str) -> Result<&TestProgram> {
        self.0
            .iter()
            .find(|test| test.kind == "test" && test.target == target)
            .with_context(|| format!("no test target of the workspace is called `{target}`"))
    }

    /// Reads what [`save`](Self::save) has written.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// For suites that run as other processes.
    pub fn save(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Builds `dormouse`.
pub fn dormouse(workspace: &Workspace, profile: Profile) -> Result<()> {
    programs(workspace, profile, &["dormouse"])
}

/// Builds `dormouse`, and the server of the pods of the end-to-end tests beside it, as the tests need them.
pub fn for_tests(workspace: &Workspace) -> Result<()> {
    programs(workspace, Profile::Dev, &["dormouse", "workload"])
}

fn programs(workspace: &Workspace, profile: Profile, names: &[&str]) -> Result<()> {
    workspace
        .cargo("build")
        // The lifecycle suite brings the features that only tests ask for, so that they are unified as they are for tests.
        .args(["--workspace", "--all-features", "--test", "lifecycle"])
        .args(names.iter().flat_map(|name| ["--bin", *name]))
        .args(profile.args())
        .hint("the compiler's message is above; if a download failed, check the network and run it again")
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_read_from_the_messages_of_cargo() {
        let artifact = |kind: &str, name: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/{name}/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            artifact("lib", "serde", false, "null"),
            artifact("bin", "dormouse", false, r#""/t/dormouse""#),
            artifact("lib", "dlx", true, r#""/t/dlx-1""#),
            artifact("test", "dlx", true, r#""/t/dlx-2""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "not json".to_owned(),
        ];
        let tests = Tests::of(&messages.join("\n"));
        let files: Vec<_> = tests.iter().map(|test| test.file.to_str().unwrap()).collect();
        assert_eq!(files, ["/t/dlx-1", "/t/dlx-2"]);
        let found = tests.find("dlx").unwrap();
        assert_eq!(
            (found.file.as_path(), found.folder.as_path()),
            (Path::new("/t/dlx-2"), Path::new("/w/dlx"))
        );
        assert!(tests.find("serde").is_err());
    }
}
