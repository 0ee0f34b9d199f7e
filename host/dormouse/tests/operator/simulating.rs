//! What docs/simulate.md shows is what comes out.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command of the document, and what it says to come of it.
struct Shown {
    script: String,
    answer: String,
}

/// The commands of the document, except those that are not for tests.
fn shown(document: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut fences = document.split("```").skip(1).step_by(2);
    while let Some((language, text)) = fences.next().and_then(|fence| fence.split_once('\n')) {
        match language {
            "sh" => shown.push(Shown {
                script: text.to_owned(),
                answer: String::new(),
            }),
            "text" => shown.last_mut().unwrap().answer.push_str(text),
            _ => {}
        }
    }
    shown
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn simulations_come_out_as_they_are_documented() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("docs/simulate");
    std::fs::create_dir_all(&files).unwrap();
    for file in std::fs::read_dir(docs().join("simulate")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), files.join(file.file_name())).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_dormouse"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let shown = shown(&std::fs::read_to_string(docs().join("simulate.md")).unwrap());
    assert_eq!(shown.len(), 3, "blocks of the document");
    for Shown { script, answer } in shown {
        let output = Command::new("sh")
            .args(["-eu", "-c", &script])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap();
        let (told, complained) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{script}{complained}");
        // What is shown without an answer only has to work.
        if !answer.is_empty() {
            assert_eq!(told, answer, "{script}");
        }
    }
    assert!(
        std::fs::read_to_string(folder.path().join("day.svg"))
            .unwrap()
            .starts_with("<svg")
    );
}
