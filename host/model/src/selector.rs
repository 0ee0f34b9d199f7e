//! Label selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Which objects are meant, by their labels: all requirements must hold; none means every object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector(Vec<Requirement>);

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    Greater(String, i64),
    Less(String, i64),
}

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a label selector: {why} in {part:?}")]
pub struct SelectorError {
    text: String,
    part: String,
    why: &'static str,
}

impl LabelSelector {
    /// Whether it has no requirement.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From a map, such as a Service's selector or `matchLabels`.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]));
        Self(requirements.collect())
    }

    /// Adds one of `matchExpressions`. False: the operator is none that Kubernetes knows.
    pub fn and(&mut self, key: &str, operator: &str, values: Vec<String>) -> bool {
        let key = key.to_owned();
        self.0.push(match operator {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::Missing(key),
            _ => return false,
        });
        true
    }

    /// Whether labels fulfil it.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| requirement.holds(&label))
    }

    /// Whether a map of labels fulfils it.
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }

    /// As labels, if it asks for nothing but given values: `a=b,c=d`.
    pub fn as_labels(&self) -> Option<BTreeMap<String, String>> {
        self.0
            .iter()
            .map(|requirement| match requirement {
                Requirement::In(key, values) => match &values[..] {
                    [only] => Some((key.clone(), only.clone())),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }
}

impl Requirement {
    fn holds<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| label(key).and_then(|value| value.parse::<i64>().ok());
        let one_of = |key: &str, values: &[String]| {
            label(key).is_some_and(|value| values.iter().any(|wanted| wanted == value))
        };
        match self {
            Self::In(key, values) => one_of(key, values),
            Self::NotIn(key, values) => !one_of(key, values),
            Self::Exists(key) => label(key).is_some(),
            Self::Missing(key) => label(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }

    fn parse(part: &str) -> Result<Self, &'static str> {
        if let Some((left, rest)) = part.split_once('(') {
            let values = rest.strip_suffix(')').ok_or("a missing )")?;
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            let (name, operator) = left.trim().split_once(char::is_whitespace).ok_or("no operator")?;
            return match operator.trim() {
                "in" => Ok(Self::In(key(name)?, values)),
                "notin" => Ok(Self::NotIn(key(name)?, values)),
                _ => Err("an operator that is neither in nor notin"),
            };
        }
        if let Some(name) = part.strip_prefix('!').filter(|rest| !rest.contains('=')) {
            return key(name).map(Self::Missing);
        }
        if let Some((name, text)) = part.split_once("!=") {
            return Ok(Self::NotIn(key(name)?, vec![value(text)?]));
        }
        if let Some((name, text)) = part.split_once("==").or_else(|| part.split_once('=')) {
            return Ok(Self::In(key(name)?, vec![value(text)?]));
        }
        let number = |text: &str| text.trim().parse().map_err(|_| "no whole number");
        if let Some((name, bound)) = part.split_once('>') {
            return Ok(Self::Greater(key(name)?, number(bound)?));
        }
        if let Some((name, bound)) = part.split_once('<') {
            return Ok(Self::Less(key(name)?, number(bound)?));
        }
        key(part).map(Self::Exists)
    }
}

fn key(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() {
        Err("no key")
    } else if text.chars().all(is_fine) {
        Ok(text.to_owned())
    } else {
        Err("no possible key")
    }
}

fn value(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.chars().all(is_fine) {
        Ok(text.to_owned())
    } else {
        Err("no possible value")
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    /// As `kubectl -l` takes it: `a=b,c!=d,e in (f,g),!h`.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        split(text)
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                Requirement::parse(part).map_err(|why| SelectorError {
                    text: text.to_owned(),
                    part: part.to_owned(),
                    why,
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
                Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(",")),
                Requirement::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(",")),
                Requirement::Exists(key) => f.write_str(key),
                Requirement::Missing(key) => write!(f, "!{key}"),
                Requirement::Greater(key, bound) => write!(f, "{key}>{bound}"),
                Requirement::Less(key, bound) => write!(f, "{key}<{bound}"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn matches(text: &str) -> bool {
        let labels = [
            ("app", "web"),
            ("tier", "front"),
            ("n", "5"),
            ("example.com/a", ""),
        ];
        let label = |key: &str| {
            labels
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| *value)
        };
        text.parse::<LabelSelector>().unwrap().matches(label)
    }

    #[rstest]
    #[case("", true)]
    #[case("app=web", true)]
    #[case("app = web", true)]
    #[case("app==web,tier!=back", true)]
    #[case("app in (db, web)", true)]
    #[case("app in (db,web),tier", true)]
    #[case("app notin (db,web)", false)]
    #[case("absent notin (x)", true)]
    #[case("tier", true)]
    #[case("!tier", false)]
    #[case("!absent,app", true)]
    #[case("absent!=x", true)]
    #[case("n>4", true)]
    #[case("n<5", false)]
    #[case("app>4", false)]
    #[case("app=", false)]
    #[case("example.com/a=", true)]
    fn labels_match(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(matches(text), expected);
        let again = text.parse::<LabelSelector>().unwrap().to_string();
        assert_eq!(matches(&again), expected, "{again}");
    }

    #[rstest]
    #[case("app in (a", "a missing )")]
    #[case("app of (a)", "an operator that is neither in nor notin")]
    #[case("in(a)", "no operator")]
    #[case("a b", "no possible key")]
    #[case("=a", "no key")]
    #[case("!", "no key")]
    #[case("a=b c", "no possible value")]
    #[case("n>x", "no whole number")]
    fn mistakes_are_named(#[case] text: &str, #[case] why: &str) {
        let error = text.parse::<LabelSelector>().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }

    #[rstest]
    #[case("app=web,tier=front", Some(2))]
    #[case("app==web", Some(1))]
    #[case("app in (a)", Some(1))]
    #[case("app in (a,b)", None)]
    #[case("app!=web", None)]
    #[case("app", None)]
    #[case("", Some(0))]
    fn plain_ones_are_labels(#[case] text: &str, #[case] labels: Option<usize>) {
        let selector: LabelSelector = text.parse().unwrap();
        assert_eq!(selector.as_labels().map(|labels| labels.len()), labels);
    }
}
