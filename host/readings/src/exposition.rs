//! The text format in which programs show their metrics to Prometheus (version 0.0.4), read strictly.
//!
//! A page that is not that format is an error as a whole, even if the wanted metric could be made out: an error page
//! with status 200 must not pass for "no such metric". The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::HashSet;

use dormouse_model::Quantity;
use thiserror::Error;

use crate::Measured;

/// Which series are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Name of the metric, as it stands in the text: `http_requests_total`, `latency_seconds_count`.
    pub metric: String,
    /// Labels that a series must have, with these values. It may have others.
    pub labels: Vec<(String, String)>,
}

/// A text that says nothing reliable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpositionError {
    /// A line is not of the format.
    #[error("line {line} is not in the Prometheus text format: {problem}")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not text at all.
    #[error("it is not text in UTF-8")]
    NotText,
    /// The same series twice.
    #[error("line {line} repeats a series")]
    Repeated {
        /// Number of the line, from 1.
        line: usize,
    },
    /// An infinite value.
    #[error("line {line} has an infinite value")]
    Infinite {
        /// Number of the line, from 1.
        line: usize,
    },
}

/// Adds up all series that are wanted. A sample with a timestamp before `not_before` (milliseconds since 1970) is no data,
/// and so is NaN.
///
/// # Errors
/// [`ExpositionError`]
pub fn sum(text: &[u8], wanted: &Wanted, not_before: i64) -> Result<Measured, ExpositionError> {
    let text = std::str::from_utf8(text).map_err(|_| ExpositionError::NotText)?;
    let mut values = Vec::new();
    let mut seen = HashSet::new();
    let mut missing = None;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let malformed = |problem| ExpositionError::Malformed {
            line: number,
            problem,
        };
        let Some(mut sample) = sample(line).map_err(malformed)? else {
            continue;
        };
        let has = |(name, value): &(String, String)| {
            let labels = sample.labels.iter();
            labels.into_iter().any(|(n, v)| n == name && v == value)
        };
        if sample.metric != wanted.metric || !wanted.labels.iter().all(has) {
            continue;
        }
        sample.labels.sort_unstable();
        if !seen.insert(sample.labels) {
            return Err(ExpositionError::Repeated { line: number });
        }
        if sample.timestamp.is_some_and(|at| at < not_before) {
            missing = Some(format!("{} is older than the window", wanted.metric));
        }
        match sample.value {
            Number::Finite(value) => values.push(value),
            Number::NaN => missing = Some(format!("{} is NaN", wanted.metric)),
            Number::Infinite => return Err(ExpositionError::Infinite { line: number }),
        }
    }
    Ok(match missing {
        Some(missing) => Measured::NoData(missing),
        None if values.is_empty() && wanted.labels.is_empty() => {
            Measured::NoData(format!("there is no metric {}", wanted.metric))
        }
        None if values.is_empty() => {
            Measured::NoData(format!("there is no metric {} with these labels", wanted.metric))
        }
        None => Measured::Value(values.into_iter().sum()),
    })
}

struct Sample<'a> {
    metric: &'a str,
    labels: Vec<(&'a str, String)>,
    value: Number,
    timestamp: Option<i64>,
}

enum Number {
    Finite(Quantity),
    NaN,
    Infinite,
}

type Problem = &'static str;

/// One line: a sample, or nothing (empty lines and comments).
fn sample(line: &str) -> Result<Option<Sample<'_>>, Problem> {
    let line = line.trim_matches([' ', '\t']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| !is_name(c, true)).unwrap_or(line.len());
    let (metric, rest) = line.split_at(end);
    if metric.is_empty() || metric.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("it does not begin with the name of a metric");
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        // Something has to keep the name and the value apart.
        None if end == line.len() || !line[end..].starts_with([' ', '\t']) => {
            return Err("there is no value behind the name");
        }
        None => (Vec::new(), rest),
    };
    // OpenMetrics adds exemplars behind a `#`.
    let rest = rest.split_once(" # ").map_or(rest, |(sample, _)| sample);
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let value = number(words.next().ok_or("there is no value")?)?;
    let timestamp = words.next().map(timestamp).transpose()?;
    if words.next().is_some() {
        return Err("there is something behind value and timestamp");
    }
    Ok(Some(Sample {
        metric,
        labels,
        value,
        timestamp,
    }))
}

fn is_name(c: char, colon: bool) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':')
}

type Labels<'a> = Vec<(&'a str, String)>;

/// What stands between the braces, and what follows them.
fn labels(text: &str) -> Result<(Labels<'_>, &str), Problem> {
    let blanks = [' ', '\t'];
    let mut labels: Labels<'_> = Vec::new();
    let mut rest = text.trim_start_matches(blanks);
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let end = rest.find(|c| !is_name(c, false)).ok_or("the labels do not end")?;
        let (name, after) = rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("a label has no name");
        }
        if labels.iter().any(|(known, _)| *known == name) {
            return Err("a label stands twice");
        }
        let after = after.trim_start_matches(blanks);
        let after = after.strip_prefix('=').ok_or("a label has no value")?;
        let after = after.trim_start_matches(blanks);
        let after = after
            .strip_prefix('"')
            .ok_or("a label's value is not in quotes")?;
        let (value, after) = quoted(after)?;
        labels.push((name, value));
        let after = after.trim_start_matches(blanks);
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start_matches(blanks),
            None if after.starts_with('}') => after,
            None => return Err("a label is not followed by a comma or a brace"),
        };
    }
}

/// A label's value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), Problem> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match chars.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                _ => return Err("a label's value has an unknown escape"),
            },
            c => value.push(c),
        }
    }
    Err("a label's value has no closing quote")
}

fn number(word: &str) -> Result<Number, Problem> {
    const PROBLEM: Problem = "the value is not a number";
    // Quantities know suffixes that are none here (`5m`), so it has to be a plain number first.
    let rough: f64 = word.parse().map_err(|_| PROBLEM)?;
    if rough.is_nan() {
        return Ok(Number::NaN);
    }
    if rough.is_infinite() {
        return Ok(Number::Infinite);
    }
    word.parse().map(Number::Finite).map_err(|_| PROBLEM)
}

/// Milliseconds; OpenMetrics has seconds with a fraction, which nobody sends when asked for the other format.
fn timestamp(word: &str) -> Result<i64, Problem> {
    word.parse().map_err(|_| "the timestamp is not a whole number")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(metric: &str, labels: &[(&str, &str)]) -> Wanted {
        Wanted {
            metric: metric.to_owned(),
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    fn value(text: &str) -> Result<Measured, ExpositionError> {
        Ok(Measured::Value(text.parse().unwrap()))
    }

    const PAGE: &str = "# HELP sessions Open sessions.\n# TYPE sessions gauge\n\
        sessions{kind=\"ws\",zone=\"a\"} 2\nsessions{kind=\"ws\",zone=\"b\",} 1.5e+00\nsessions { kind = \"sse\" } 4 1700000000000\n\
        quiet 0\nodd NaN\nlimit{le=\"+Inf\"} +Inf\n\n  padded\t7\nescaped{a=\"x\\\"}\\\\\\n,y\"} 3\n\
        with_exemplar_bucket{le=\"1\"} 5 # {trace=\"x\"} 0.6 1700000000.1\n# EOF\n";

    #[test]
    fn series_are_chosen_by_labels_and_added_up() {
        for (metric, labels, expected) in [
            ("sessions", &[][..], "7.5"),
            ("sessions", &[("kind", "ws")][..], "3.5"),
            ("sessions", &[("kind", "ws"), ("zone", "a")][..], "2"),
            ("quiet", &[][..], "0"),
            ("padded", &[][..], "7"),
            ("escaped", &[("a", "x\"}\\\n,y")][..], "3"),
            ("with_exemplar_bucket", &[("le", "1")][..], "5"),
        ] {
            let sum = sum(PAGE.as_bytes(), &wanted(metric, labels), 0);
            assert_eq!(sum, value(expected), "{metric} {labels:?}");
        }
    }

    #[test]
    fn nothing_nan_and_old_samples_are_no_data() {
        for (metric, labels, not_before, said) in [
            ("sessions", &[("kind", "other")][..], 0, "with these labels"),
            ("session", &[][..], 0, "no metric session"),
            ("odd", &[][..], 0, "NaN"),
            ("sessions", &[][..], 1_700_000_000_001, "older"),
        ] {
            match sum(PAGE.as_bytes(), &wanted(metric, labels), not_before) {
                Ok(Measured::NoData(why)) => assert!(why.contains(said), "{why}"),
                other => panic!("{metric}: {other:?}"),
            }
        }
        assert!(matches!(sum(b"", &wanted("a", &[]), 0), Ok(Measured::NoData(_))));
    }

    #[test]
    fn a_page_that_is_something_else_is_an_error_even_where_the_metric_is_there() {
        for page in [
            "<html><body>Welcome</body></html>",
            "{\"status\": \"ok\"}",
            "a 1\n<html>",
            "a 1\nb",
            "a 1\nb{x} 1",
            "a 1\nb{x=\"y} 1",
            "a 1\nb{x=\"y\" z=\"\"} 1",
            "a 1\nb{x=\"y\",x=\"z\"} 1",
            "a 1\nb{x=\"\\t\"} 1",
            "a 1\nb{1=\"y\"} 1",
            "a 1\nb 5m",
            "a 1\nb 1 2 3",
            "a 1\nb 1 soon",
            "a 1\nb{} ",
            "a 1\n1b 1",
            "a 1\r\n\u{0}",
            "a 1\nüml 1",
        ] {
            let error = sum(page.as_bytes(), &wanted("a", &[]), 0);
            assert!(
                matches!(error, Err(ExpositionError::Malformed { .. })),
                "{page}: {error:?}"
            );
        }
        assert_eq!(sum(b"\xff", &wanted("a", &[]), 0), Err(ExpositionError::NotText));
    }

    #[test]
    fn two_values_for_one_series_and_infinity_are_errors() {
        let twice = "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n";
        assert_eq!(
            sum(twice.as_bytes(), &wanted("a", &[]), 0),
            Err(ExpositionError::Repeated { line: 2 })
        );
        assert_eq!(
            sum(PAGE.as_bytes(), &wanted("limit", &[]), 0),
            Err(ExpositionError::Infinite { line: 8 })
        );
    }

    fn escape(value: &str) -> String {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            series in prop::collection::btree_map(("[a-c]", "\\PC{0,8}|\n|\"|\\\\"), -1000_i64..1000, 0..8),
        ) {
            let mut page = String::from("# TYPE m gauge\n");
            for ((label, text), number) in &series {
                page.push_str(&format!("m{{{label}=\"{}\"}} {number}\n", escape(text)));
            }
            let total: i64 = series.values().sum();
            let expected = if series.is_empty() { None } else { Some(total.to_string().parse::<Quantity>().unwrap()) };
            match sum(page.as_bytes(), &wanted("m", &[]), 0).unwrap() {
                Measured::Value(value) => prop_assert_eq!(Some(value), expected),
                Measured::NoData(_) => prop_assert_eq!(None, expected),
            }
        }

        #[test]
        fn no_text_breaks_it(page in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = sum(&page, &wanted("a", &[]), 0);
        }

        #[test]
        fn nothing_like_a_page_breaks_it(page in "([a{}=\",\\\\ #\n]|1|\\PC|NaN|Inf){0,60}") {
            let _ = sum(page.as_bytes(), &wanted("a", &[("a", "1")].map(|l| l)), 0);
        }
    }
}
