//! What suites ask of the docs: fenced blocks, inline code, links, headings.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

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

/// What a document consists of, each with its place in the text.
fn events(text: &str) -> impl Iterator<Item = (Event<'_>, Range<usize>)> {
    Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH).into_offset_iter()
}

/// The line of a place, from 1.
fn line_of(text: &str, place: usize) -> usize {
    1 + text[..place].matches('\n').count()
}

/// All fenced blocks.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    // Where the last block ended.
    let mut end = 0;
    for (event, range) in events(text) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                open = true;
                let mut before = text[end..range.start].lines().rev().map(str::trim);
                blocks.push(Block {
                    line: line_of(text, range.start),
                    info: info.to_string(),
                    before: before
                        .find(|line| !line.is_empty())
                        .unwrap_or_default()
                        .to_owned(),
                    text: String::new(),
                });
            }
            Event::Text(code) if open => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(&code);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                open = false;
                end = range.end;
            }
            _ => {}
        }
    }
    blocks
}

/// Inline code, with its line.
pub fn inline_code(text: &str) -> Vec<(usize, String)> {
    events(text)
        .filter_map(|(event, range)| match event {
            Event::Code(code) => Some((line_of(text, range.start), code.to_string())),
            _ => None,
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

/// Targets of links and images, `src` and the like of HTML included, and of references that no link uses.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let parser = Parser::new_ext(text, Options::ENABLE_TABLES);
    let mut found: Vec<(usize, String)> = parser
        .reference_definitions()
        .iter()
        .map(|(_, definition)| (line_of(text, definition.span.start), definition.dest.to_string()))
        .collect();
    for (event, range) in parser.into_offset_iter() {
        let line = line_of(text, range.start);
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                found.push((line, dest_url.to_string()));
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                for attribute in ["src=\"", "srcset=\"", "href=\""] {
                    for rest in html.split(attribute).skip(1) {
                        let target = rest.split(['"', ' ']).next().unwrap_or_default();
                        found.push((line, target.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Anchors that the headings of a document have on GitHub.
pub fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let mut title = None;
    for (event, _) in events(text) {
        match (event, &mut title) {
            (Event::Start(Tag::Heading { .. }), _) => title = Some(String::new()),
            (Event::Text(part) | Event::Code(part), Some(title)) => title.push_str(&part),
            (Event::End(TagEnd::Heading(_)), Some(text)) => {
                let slug = slug(text);
                title = None;
                let same = anchors.iter().filter(|anchor| **anchor == slug).count();
                anchors.push(if same == 0 { slug } else { format!("{slug}-{same}") });
            }
            _ => {}
        }
    }
    anchors
}

fn slug(title: &str) -> String {
    let mut slug = String::new();
    for c in title.trim().chars() {
        match c {
            ' ' => slug.push('-'),
            '-' | '_' => slug.push(c),
            c if c.is_alphanumeric() => slug.push(c.to_ascii_lowercase()),
            _ => {}
        }
    }
    slug
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
