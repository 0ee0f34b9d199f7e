//! Names of images.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};

/// A name with its tag, such as `dormouse:0.1.0` or `example.org/team/dormouse:0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    name: String,
    tag: String,
}

impl Reference {
    /// The part behind the colon.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// With the registry and folder that everybody adds to a short name. The kubelet looks for an image under this
    /// name, so this is what it must be stored under.
    pub fn in_full(&self) -> String {
        let host = self
            .name
            .split_once('/')
            .map(|(first, _)| first)
            .filter(|first| first.contains(['.', ':']) || *first == "localhost");
        let prefix = match (host, self.name.contains('/')) {
            (Some(_), _) => "",
            (None, true) => "docker.io/",
            (None, false) => "docker.io/library/",
        };
        format!("{prefix}{self}")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // A colon before a slash belongs to the port of a registry.
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        let name_is_good = name.len() <= 255
            && name.split('/').enumerate().all(|(index, part)| {
                let allowed = |c: char| {
                    c.is_ascii_lowercase()
                        || c.is_ascii_digit()
                        || "._-".contains(c)
                        || (index == 0 && c == ':')
                };
                part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && part.chars().all(allowed)
            });
        let tag_is_good = !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !name_is_good || !tag_is_good {
            bail!("`{text}` is no image name: say it like dormouse:0.1.0 or example.org/team/dormouse:0.1.0");
        }
        Ok(Self {
            name: name.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_what_everybody_adds() {
        let in_full = |text: &str| text.parse::<Reference>().unwrap().in_full();
        assert_eq!(in_full("dormouse"), "docker.io/library/dormouse:latest");
        assert_eq!(in_full("dormouse:0.1.0"), "docker.io/library/dormouse:0.1.0");
        assert_eq!(in_full("team/dormouse:1"), "docker.io/team/dormouse:1");
        assert_eq!(in_full("dormouse.test/workload:1"), "dormouse.test/workload:1");
        assert_eq!(in_full("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(in_full("localhost/a:1"), "localhost/a:1");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            ":1",
            "A:1",
            "a b:1",
            "a:1 2",
            "/a:1",
            "a//b:1",
            "a/:1",
            "a:-1",
            "a@sha256:1",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
