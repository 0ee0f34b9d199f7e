//! Rust files that the docs name by a path are there.

use std::fs;

use anyhow::Result;

use crate::workspace::Workspace;

/// How many paths were looked for, and which name no file. A path may leave out the folders in front.
pub fn wrong(workspace: &Workspace) -> Result<(usize, Vec<String>)> {
    let files = workspace.files(".rs")?;
    let files: Vec<_> = files
        .iter()
        .map(|file| format!("/{}", workspace.shown(file)))
        .collect();
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in workspace.markdown_files()? {
        let place = workspace.shown(&file).to_string();
        // Records say what was so when they were written.
        if place.starts_with("docs/adr") {
            continue;
        }
        for (line, text) in fs::read_to_string(&file)?.lines().enumerate() {
            for path in paths(text) {
                seen += 1;
                let end = format!("/{path}");
                if !files.iter().any(|file| file.ends_with(&end)) {
                    wrong.push(format!("{place}:{}: there is no file {path}", line + 1));
                }
            }
        }
    }
    Ok((seen, wrong))
}

/// Paths with a folder in them, which alone can be told from a word about a file.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"_-./".contains(c))
        .map(|word| word.trim_end_matches('.').trim_start_matches("../"))
        .filter(|word| word.ends_with(".rs") && word.contains('/') && !word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_prose_code_and_tables() {
        let text = "It is (`a/b.rs`, `C::d`), | x/y.rs | and [z](../host/z.rs). Not lib.rs, next/*.rs or https://h/p.rs.";
        let found: Vec<_> = paths(text).collect();
        assert_eq!(found, ["a/b.rs", "x/y.rs", "host/z.rs"]);
    }
}
