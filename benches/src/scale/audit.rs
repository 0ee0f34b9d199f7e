//! Who asked the API server for what, from its audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// Requests by what was asked, such as `patch services` or `watch pods`.
pub type Requests = BTreeMap<String, u64>;

/// An audit log, and how far it was read.
pub struct Audit {
    file: PathBuf,
    read: u64,
    /// Requests of each user, since the beginning.
    users: BTreeMap<String, Requests>,
}

impl Audit {
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            read: 0,
            users: BTreeMap::new(),
        }
    }

    /// Everything that a user has asked for so far.
    pub fn of(&self, user: &str) -> Requests {
        self.users.get(user).cloned().unwrap_or_default()
    }

    /// Reads on.
    pub fn read_on(&mut self) -> std::io::Result<()> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // The last line may not be complete yet.
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.read += whole as u64;
        for line in text[..whole].split(|byte| *byte == b'\n') {
            if let Some((user, asked)) = serde_json::from_slice::<Event>(line).ok().and_then(Event::told) {
                *self.users.entry(user).or_default().entry(asked).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// What was asked for between two moments.
pub fn between(before: &Requests, after: &Requests) -> Requests {
    after
        .iter()
        .map(|(asked, count)| (asked.clone(), count - before.get(asked).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// All but the opening of watches.
pub fn beyond_watches(requests: &Requests) -> u64 {
    let asked = requests.iter().filter(|(asked, _)| !asked.starts_with("watch "));
    asked.map(|(_, count)| count).sum()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    impersonated_user: Option<User>,
    object_ref: Option<Object>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Object {
    resource: Option<String>,
    subresource: Option<String>,
}

impl Event {
    /// Who asked for what, if this is the event that counts. The bench itself asks in nobody's name.
    fn told(self) -> Option<(String, String)> {
        let user = self.impersonated_user?.username;
        let counts = if self.verb == "watch" {
            "ResponseStarted"
        } else {
            "ResponseComplete"
        };
        if self.stage != counts {
            return None;
        }
        let what = match self.object_ref {
            Some(Object {
                resource: Some(resource),
                subresource: Some(part),
            }) => format!("{resource}/{part}"),
            Some(Object {
                resource: Some(resource),
                ..
            }) => resource,
            _ => self.request_uri.split('?').next().unwrap_or_default().to_owned(),
        };
        Some((user, format!("{} {what}", self.verb)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn requests_are_told_apart_by_user_and_object_and_read_once() -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let line = |stage: &str, verb: &str, user: &str, object: &str| {
            format!(
                "{{\"stage\": \"{stage}\", \"verb\": \"{verb}\", \"requestURI\": \"/version?x\", \
                 \"user\": {{\"username\": \"admin\"}}{user}{object}}}\n"
            )
        };
        let dlx = r#", "impersonatedUser": {"username": "dlx-1"}"#;
        let scale = r#", "objectRef": {"resource": "deployments", "subresource": "scale"}"#;
        let mut log = String::new();
        log += &line("ResponseComplete", "update", dlx, scale);
        log += &line(
            "ResponseStarted",
            "watch",
            dlx,
            r#", "objectRef": {"resource": "pods"}"#,
        );
        log += &line(
            "ResponseComplete",
            "watch",
            dlx,
            r#", "objectRef": {"resource": "pods"}"#,
        );
        log += &line("ResponseComplete", "update", "", scale);
        log += &line("ResponseComplete", "get", dlx, "");
        write!(&file, "{log}{{\"stage\": \"Resp")?;
        let mut audit = Audit::new(file.path().to_owned());
        audit.read_on()?;
        let before = audit.of("dlx-1");
        let told: Vec<_> = before
            .iter()
            .map(|(asked, count)| (asked.as_str(), *count))
            .collect();
        let all = [
            ("get /version", 1),
            ("update deployments/scale", 1),
            ("watch pods", 1),
        ];
        assert_eq!(told, all);
        assert_eq!(beyond_watches(&before), 2);
        writeln!(
            &file,
            "{}",
            &line("ResponseComplete", "get", dlx, "")[r#"{"stage": "Resp"#.len()..]
        )?;
        audit.read_on()?;
        let more = between(&before, &audit.of("dlx-1"));
        assert_eq!(
            more.into_iter().collect::<Vec<_>>(),
            [("get /version".to_owned(), 1)]
        );
        Ok(())
    }
}
