//! Follows docs/writing-a-scaler.md word for word, as a reader would: in a new folder outside of the workspace.
//!
//! What counts in the document:
//! * a block ` ```sh ` is run by `sh`, in order; folder and variables carry over from block to block;
//! * a block below a line that is only a bold file name (`**src/lib.rs**`) is written to that file;
//! * ` ```sh no-test ` and all other blocks are for reading only.
//!
//! `DORMOUSE` holds the path of the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::markdown;
use crate::tools;
use crate::workspace::Workspace;
use xtask_command::{Cmd, Steps};

/// The document.
pub const DOCUMENT: &str = "docs/writing-a-scaler.md";

/// Something that the document asks its reader to do.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Run { line: usize, script: String },
    Write { line: usize, path: String, text: String },
}

/// `cargo xtask tutorial`.
pub fn command(workspace: &Workspace, folder: Option<PathBuf>) -> Result<()> {
    let mut steps = Steps::new(2);
    steps.run("check the tools", || tools::for_guests(workspace))?;
    let plugin = steps.run(&format!("follow {DOCUMENT}"), || match folder {
        Some(folder) => follow(workspace, &std::env::current_dir()?.join(folder)),
        None => Ok(Followed::anew(workspace)?.keep()),
    })?;
    println!("{}", plugin.display());
    Ok(())
}

/// The document, followed in a folder of its own that goes away with this: half a gigabyte, once it is built.
pub struct Followed {
    plugin: PathBuf,
    folder: TempDir,
}

impl Followed {
    /// After a failure the folder stays, to be looked at.
    pub fn anew(workspace: &Workspace) -> Result<Self> {
        let folder = TempDir::with_prefix("dormouse-tutorial-")?;
        match follow(workspace, &folder.path().join("work")) {
            Ok(plugin) => Ok(Self { plugin, folder }),
            Err(error) => Err(error.context(format!(
                "the tutorial's folder is kept: {}",
                folder.keep().display()
            ))),
        }
    }

    /// The component that came out.
    pub fn plugin(&self) -> &Path {
        &self.plugin
    }

    /// Leaves the folder where it is.
    pub fn keep(self) -> PathBuf {
        let _kept = self.folder.keep();
        self.plugin
    }
}

/// Follows the document and returns the component that came out.
fn follow(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let document = workspace.path(DOCUMENT);
    let text =
        fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    let actions = actions(&text)?;
    fs::create_dir_all(folder.parent().context("no parent folder")?)?;
    fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let script = folder.join(".tutorial.sh");
    fs::write(&script, as_script(&actions)).with_context(|| format!("cannot write {}", script.display()))?;
    Cmd::new("sh")
        .arg("-eu")
        .arg(&script)
        .dir(folder)
        .env("DORMOUSE", workspace.root())
        // What a reader's shell does not have, and what would send the build elsewhere.
        .without_env("CARGO_TARGET_DIR")
        .without_env("CARGO")
        .without_env("RUSTUP_TOOLCHAIN")
        .without_env("RUSTC")
        .hint(format!(
            "the line `--- {DOCUMENT}:N` above says which block failed; correct the document, or the SDK where it \
             breaks the document's promise"
        ))
        .run()?;
    let mut plugins = Vec::new();
    find_components(folder, &mut plugins)?;
    match plugins.as_slice() {
        [plugin] => Ok(plugin.clone()),
        [] => bail!(
            "{DOCUMENT} was followed to its end, but no {}/release/*.wasm came out",
            tools::GUEST_TARGET
        ),
        many => bail!(
            "{DOCUMENT} builds {} components; which is the plugin?",
            many.len()
        ),
    }
}

fn actions(text: &str) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for block in markdown::blocks(text) {
        let mut info = block.info.split_whitespace();
        let language = info.next().unwrap_or_default();
        if info.any(|word| word == "no-test") {
            continue;
        }
        if let Some(path) = file_name(&block.before) {
            if Path::new(&path).is_absolute() || path.split('/').any(|part| part == "..") {
                bail!(
                    "{DOCUMENT}:{}: {path} is outside of the tutorial's folder",
                    block.line
                );
            }
            actions.push(Action::Write {
                line: block.line,
                path,
                text: block.text,
            });
        } else if language == "sh" {
            actions.push(Action::Run {
                line: block.line,
                script: block.text,
            });
        }
    }
    if !actions.iter().any(|action| matches!(action, Action::Run { .. })) {
        bail!("{DOCUMENT} has no `sh` block to run");
    }
    Ok(actions)
}

/// `**src/lib.rs**`, with or without backticks and a colon.
fn file_name(line: &str) -> Option<String> {
    let inner = line
        .strip_prefix("**")?
        .trim_end_matches(':')
        .strip_suffix("**")?;
    let name = inner.trim_end_matches(':').trim_matches('`');
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    (plain && name.contains('.')).then(|| name.to_owned())
}

/// One script, so that folder and variables carry over.
fn as_script(actions: &[Action]) -> String {
    let mut script = String::new();
    for action in actions {
        match action {
            Action::Run { line, script: text } => {
                script.push_str(&format!("echo '--- {DOCUMENT}:{line}'\n{text}\n"));
            }
            Action::Write { line, path, text } => {
                let mut end = "END_OF_FILE".to_owned();
                while text.lines().any(|line| line == end) {
                    end.push('_');
                }
                script.push_str(&format!(
                    "echo '--- {DOCUMENT}:{line} ({path})'\nmkdir -p \"$(dirname '{path}')\"\ncat > '{path}' <<'{end}'\n{text}{end}\n"
                ));
            }
        }
    }
    script
}

fn find_components(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let in_release = folder.ends_with(format!("{}/release", tools::GUEST_TARGET));
        if path.is_dir() && !path.is_symlink() && !in_release {
            find_components(&path, found)?;
        } else if in_release && path.extension().is_some_and(|extension| extension == "wasm") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
```sh
mkdir new && cd new
word=kept
```

**src/a.txt**

```rust
it's $word
END_OF_FILE
```

```sh no-test
exit 1
```

Snippet:

```rust
not a file
```

```sh
test -f src/a.txt && test \"$word\" = kept && cat src/a.txt
```
";

    #[test]
    fn folder_and_variables_carry_over_and_files_are_exact() {
        let actions = actions(TEXT).unwrap();
        assert_eq!(actions.len(), 3);
        let folder =
            std::env::temp_dir().join(format!("dormouse-xtask-tutorial-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let output = Cmd::new("sh")
            .args(["-eu", "-c", &as_script(&actions)])
            .dir(&folder)
            .output();
        fs::remove_dir_all(&folder).unwrap();
        let output = output.unwrap();
        assert!(output.ends_with("it's $word\nEND_OF_FILE\n"), "{output}");
        assert!(output.contains("--- docs/writing-a-scaler.md:1\n"), "{output}");
    }

    #[test]
    fn a_failing_block_fails_the_script() {
        let actions = actions("```sh\nfalse\n```\n```sh\ntrue\n```\n").unwrap();
        assert!(
            Cmd::new("sh")
                .args(["-eu", "-c", &as_script(&actions)])
                .output()
                .is_err()
        );
    }

    #[test]
    fn file_names_are_bold_and_alone() {
        assert_eq!(file_name("**src/lib.rs**").as_deref(), Some("src/lib.rs"));
        assert_eq!(file_name("**`Cargo.toml`**:").as_deref(), Some("Cargo.toml"));
        assert_eq!(file_name("**Cargo.toml:**").as_deref(), Some("Cargo.toml"));
        assert_eq!(file_name("**Note**"), None);
        assert_eq!(file_name("write **src/lib.rs** now"), None);
        assert!(actions("**../x.rs**\n```rust\n```\n```sh\n```\n").is_err());
    }
}
