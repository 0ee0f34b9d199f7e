//! What docs/architecture.md says.

use std::collections::{BTreeMap, BTreeSet};

use crate::markdown;

/// What follows the fence of the picture.
const PICTURE: &str = "text crates";

/// A numbered item: one file, and one name in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub line: usize,
    pub file: String,
    pub name: String,
}

/// The page.
#[derive(Debug, Default)]
pub struct Page {
    pub steps: Vec<Step>,
    /// Crates, from the top.
    pub rows: Vec<Vec<String>>,
    /// What each crate imports.
    pub table: BTreeMap<String, BTreeSet<String>>,
    /// What cannot be read as any of these.
    pub malformed: Vec<String>,
}

impl Page {
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        for (line, item) in items(text) {
            match step(line, &item) {
                Some(step) => page.steps.push(step),
                None => page.malformed.push(format!(
                    "line {line}: a step names one file and, right after it, one function or type"
                )),
            }
        }
        let picture = markdown::blocks(text)
            .into_iter()
            .find(|block| block.info == PICTURE);
        match picture {
            Some(picture) => {
                let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
                page.rows = picture.text.lines().map(words).collect();
            }
            None => page.malformed.push(format!("no block `{PICTURE}`")),
        }
        for line in text.lines() {
            page.row_of_table(line);
        }
        page
    }

    /// `` | `crate` | what it is | `one`, `other` | ``
    fn row_of_table(&mut self, line: &str) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let [name, _, imports] = cells[..] else {
            return;
        };
        let (name, imports) = (code(name), code(imports));
        if let [name] = &name[..]
            && self
                .table
                .insert(name.clone(), imports.into_iter().collect())
                .is_some()
        {
            self.malformed.push(format!("{name} is in the table twice"));
        }
    }
}

fn code(text: &str) -> Vec<String> {
    markdown::inline_code(text)
        .into_iter()
        .map(|(_, code)| code)
        .collect()
}

/// Numbered items with their first lines.
fn items(text: &str) -> Vec<(usize, String)> {
    let mut items: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
        if digits.len() < line.len() && digits.starts_with(". ") {
            items.push((number + 1, line.to_owned()));
            inside = true;
        } else if line.trim().is_empty() {
            inside = false;
        } else if let (true, Some((_, item))) = (inside, items.last_mut()) {
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    items
}

fn step(line: usize, item: &str) -> Option<Step> {
    let code = code(item);
    let is_file = |code: &String| code.ends_with(".rs");
    let place = code.iter().position(is_file)?;
    let only = code.iter().filter(|code| is_file(code)).count() == 1;
    Some(Step {
        line,
        file: code[place].clone(),
        name: code.get(place + 1).filter(|_| only)?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_with_their_lines() {
        let page = Page::read(
            "1. It begins with `this`\n   and ends (`a/b.rs`, `c`).\n2. Then (`d.rs`, `e`).\n\nNot `f.rs`.\n\n3. Nothing.\n\
             4. Two: `g.rs`, `h`, `i.rs`.\n",
        );
        let step = |line, file: &str, name: &str| Step {
            line,
            file: file.to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(page.steps, [step(1, "a/b.rs", "c"), step(3, "d.rs", "e")]);
        let lines: Vec<_> = page.malformed.iter().map(|told| &told[..7]).collect();
        assert_eq!(lines, ["line 7:", "line 8:", "no bloc"]);
    }

    #[test]
    fn the_picture_and_the_table_are_read() {
        let page = Page::read(
            "```text crates\na\nb   c\n```\n\n| crate | is | imports |\n|---|---|---|\n| `a` | x | `b`, `c` |\n| `b` | y | |\n",
        );
        assert_eq!(page.rows, [vec!["a"], vec!["b", "c"]]);
        assert_eq!(page.table["a"], ["b".to_owned(), "c".to_owned()].into());
        assert!(page.table["b"].is_empty());
        assert!(page.malformed.is_empty());
    }
}
