//! As much of Markdown as the docs use: fenced blocks, inline code, links, headings.

/// A fenced code block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// What follows the opening fence: `sh`, `sh no-test`, `rust`.
    pub info: String,
    /// The last line before the block that is not empty.
    pub before: String,
    /// The content, each line ended.
    pub text: String,
}

/// One line of a document, told whether it is inside a fenced block.
enum Line<'a> {
    Prose(&'a str),
    Open { info: &'a str },
    Code(&'a str),
    Close,
}

fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    let mut open: Option<&str> = None;
    text.lines().enumerate().map(move |(index, line)| {
        let trimmed = line.trim_start();
        let ticks = trimmed.len() - trimmed.trim_start_matches('`').len();
        let kind = match open {
            Some(fence) if ticks >= fence.len() && trimmed.trim_end().len() == ticks => {
                open = None;
                Line::Close
            }
            Some(_) => Line::Code(line),
            None if ticks >= 3 => {
                open = Some(&trimmed[..ticks]);
                Line::Open {
                    info: trimmed[ticks..].trim(),
                }
            }
            None => Line::Prose(line),
        };
        (index + 1, kind)
    })
}

/// All fenced blocks.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut before = "";
    let mut current: Option<Block> = None;
    for (number, line) in lines(text) {
        match line {
            Line::Prose(prose) => {
                if !prose.trim().is_empty() {
                    before = prose.trim();
                }
            }
            Line::Open { info } => {
                current = Some(Block {
                    line: number,
                    info: info.to_owned(),
                    before: before.to_owned(),
                    text: String::new(),
                });
            }
            Line::Code(code) => {
                if let Some(block) = &mut current {
                    block.text.push_str(code);
                    block.text.push('\n');
                }
            }
            Line::Close => {
                before = "";
                blocks.extend(current.take());
            }
        }
    }
    blocks
}

/// Inline code outside of fenced blocks, with its line.
pub fn inline_code(text: &str) -> Vec<(usize, String)> {
    lines(text)
        .filter_map(|(number, line)| match line {
            Line::Prose(prose) => Some((number, prose)),
            _ => None,
        })
        .flat_map(|(number, prose)| {
            prose
                .split('`')
                .skip(1)
                .step_by(2)
                .map(move |code| (number, code.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Calls of a program: inline code and lines of `sh` blocks that begin with its name.
pub fn calls_of(text: &str, program: &str) -> Vec<(usize, String)> {
    let starts = |code: &str| code == program || code.starts_with(&format!("{program} "));
    let mut calls: Vec<_> = inline_code(text)
        .into_iter()
        .filter(|(_, code)| starts(code))
        .collect();
    for block in blocks(text)
        .into_iter()
        .filter(|block| block.info.split_whitespace().next() == Some("sh"))
    {
        for (offset, line) in block.text.lines().enumerate() {
            calls.extend(
                line.split('|')
                    .map(|part| part.trim().trim_start_matches("$ "))
                    .filter(|part| starts(part))
                    .map(|part| (block.line + 1 + offset, part.to_owned())),
            );
        }
    }
    calls
}

/// The word after each occurrence of a phrase, in prose and code alike. Words that are no command (`…`, `<x>`) are left out.
pub fn words_after(text: &str, phrase: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for rest in line.split(phrase).skip(1) {
            let word: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
                .collect();
            if !word.is_empty() && !word.starts_with('-') {
                found.push((index + 1, word));
            }
        }
    }
    found
}

/// Targets of links and images outside of code, `src` and `srcset` of HTML included.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in lines(text) {
        let Line::Prose(prose) = line else { continue };
        // Even parts are outside of inline code; a placeholder keeps `[`code`](target)` together.
        let outside = prose
            .split('`')
            .enumerate()
            .map(|(index, part)| if index % 2 == 0 { part } else { "code" })
            .collect::<String>();
        for (opening, closing) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
            for rest in outside.split(opening).skip(1) {
                if let Some((target, _)) = rest.split_once(closing) {
                    let target = target.split_whitespace().next().unwrap_or_default();
                    found.push((number, target.to_owned()));
                }
            }
        }
        // Reference definitions: `[name]: target`.
        if let Some((name, target)) = prose.split_once("]: ")
            && name.starts_with('[')
        {
            found.push((
                number,
                target.split_whitespace().next().unwrap_or_default().to_owned(),
            ));
        }
    }
    found
}

/// Anchors that the headings of a document have on GitHub.
pub fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in lines(text) {
        let Line::Prose(prose) = line else { continue };
        let title = prose.trim_start_matches('#');
        let level = prose.len() - title.len();
        if !(1..=6).contains(&level) || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        let same = anchors.iter().filter(|anchor| **anchor == slug).count();
        anchors.push(if same == 0 { slug } else { format!("{slug}-{same}") });
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A title: with `code`

See [b](b.md#x) and `[not](a-link)` and [`c`](c.md).

**src/lib.rs**

```rust
fn main() {}
```

```sh no-test
dormouse demo
$ dormouse crd | kubectl apply -f -
kubectl get crd | dormouse plugin inspect x
```

Run `dormouse dlx --x`, `--flag`, or `cargo xtask demo`; `cargo xtask …` has more. dormouse sleeps.

````text
```sh
dormouse never
```
````
## A title
## A title
";

    #[test]
    fn blocks_know_their_line_info_and_what_stood_before() {
        let blocks = blocks(TEXT);
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[0].before, "**src/lib.rs**");
        assert_eq!(
            (blocks[0].line, blocks[0].info.as_str(), blocks[0].text.as_str()),
            (7, "rust", "fn main() {}\n")
        );
        assert_eq!(
            (blocks[1].info.as_str(), blocks[1].before.as_str()),
            ("sh no-test", "")
        );
        assert_eq!(blocks[2].text, "```sh\ndormouse never\n```\n");
    }

    #[test]
    fn calls_are_found_where_they_are_code() {
        let calls: Vec<_> = calls_of(TEXT, "dormouse")
            .into_iter()
            .map(|(_, call)| call)
            .collect();
        assert_eq!(
            calls,
            [
                "dormouse dlx --x",
                "dormouse demo",
                "dormouse crd",
                "dormouse plugin inspect x"
            ]
        );
    }

    #[test]
    fn words_after_a_phrase() {
        assert_eq!(words_after(TEXT, "cargo xtask "), [(17, "demo".to_owned())]);
    }

    #[test]
    fn links_are_found_outside_of_code() {
        let links: Vec<_> = links(TEXT).into_iter().map(|(_, link)| link).collect();
        assert_eq!(links, ["b.md#x", "c.md"]);
        assert_eq!(super::links("<img src=\"a.svg\">")[0].1, "a.svg");
    }

    #[test]
    fn anchors_as_github_makes_them() {
        assert_eq!(anchors(TEXT), ["a-title-with-code", "a-title", "a-title-1"]);
    }
}
