//! What the demo prints.

use std::io::IsTerminal;
use std::time::Instant;

use crate::output;

/// The terminal. Colours only where there is one.
pub struct Screen {
    colour: bool,
    start: Instant,
}

impl Screen {
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            colour,
            start: Instant::now(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    pub fn line(&self, text: &str) {
        output::report(text);
    }

    pub fn title(&self, text: &str) {
        self.line(&format!("\n{}\n", self.paint("1", text)));
    }

    pub fn chapter(&self, number: usize, text: &str) {
        self.line(&format!("\n{}", self.paint("1;36", &format!("{number}. {text}"))));
    }

    pub fn step(&self, text: &str) -> Instant {
        self.line(&format!("   {} {text} ...", self.clock()));
        Instant::now()
    }

    pub fn done(&self, since: Instant) {
        self.line(&format!(
            "   {} done in {:.1} s",
            self.clock(),
            since.elapsed().as_secs_f64()
        ));
    }

    pub fn event(&self, text: &str) {
        self.line(&format!("   {} {text}", self.clock()));
    }

    pub fn note(&self, text: &str) {
        self.line(&format!("   {}", self.paint("2", text)));
    }

    pub fn good(&self, text: &str) {
        self.line(&format!("   {} {text}", self.paint("32", "ok  ")));
    }

    pub fn bad(&self, text: &str) {
        self.line(&format!("   {} {text}", self.paint("31", "LOST")));
    }

    fn clock(&self) -> String {
        self.paint("2", &format!("[{:6.1} s]", self.start.elapsed().as_secs_f64()))
    }

    /// A table with its columns as wide as needed.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                rows.iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .chain([head[column].len()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let format_row = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            format!("   {}", padded.join("  ").trim_end())
        };
        self.line(&self.paint("2", &format_row(&mut head.iter().copied())));
        for row in rows {
            self.line(&format_row(&mut row.iter().map(String::as_str)));
        }
    }
}
