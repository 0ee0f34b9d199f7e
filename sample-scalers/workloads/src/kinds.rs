//! Which kinds are looked at, and what their resources are called.

use std::fmt;

use dormouse_sdk::prelude::*;

/// The configuration key.
const KEY: &str = "kinds";
/// Without configuration.
pub(crate) const DEFAULT: &str = "apps/v1/Deployment,apps/v1/StatefulSet";

/// A kind with a scale subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version, self.kind)
    }
}

/// The kinds that the operator configured.
///
/// # Errors
/// [`Error::InvalidConfiguration`] that names the key, the part of it that is wrong, and the accepted form.
pub fn configured() -> Result<Vec<Kind>> {
    config::only(&[KEY])?;
    parse(&config::get_or(KEY, DEFAULT))
}

fn parse(text: &str) -> Result<Vec<Kind>> {
    let mut kinds: Vec<Kind> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let well_formed = |api_version: &&str, kind: &&str| {
            let segments: Vec<&str> = api_version.split('/').collect();
            segments.len() <= 2
                && segments.iter().all(|segment| !segment.is_empty())
                && kind.starts_with(|c: char| c.is_ascii_uppercase())
                && kind.chars().all(|c| c.is_ascii_alphanumeric())
        };
        let Some((api_version, kind)) = part.rsplit_once('/').filter(|(api, kind)| well_formed(api, kind))
        else {
            return Err(config::invalid(
                KEY,
                format!("`{part}` is not a kind; write <group>/<version>/<Kind>, such as apps/v1/Deployment"),
            ));
        };
        let kind = Kind {
            api_version: api_version.into(),
            kind: kind.into(),
        };
        // Two versions of one kind are the same objects.
        if let Some(twin) = kinds
            .iter()
            .find(|other| other.kind == kind.kind && group(&other.api_version) == group(&kind.api_version))
        {
            return Err(config::invalid(
                KEY,
                format!("`{kind}` and `{twin}` are the same kind; name it once"),
            ));
        }
        kinds.push(kind);
    }
    if kinds.is_empty() {
        return Err(config::invalid(
            KEY,
            format!("names no kind; leave it out for {DEFAULT}"),
        ));
    }
    Ok(kinds)
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// What the resource of a workload is called: a Deployment keeps its name, everything else is told apart by its kind,
/// and outside `apps` by its group as well. So a Deployment `web` and a StatefulSet `web` are `web` and
/// `statefulset.web`. The name depends on the object alone: no other object, and no order in the
/// configuration, can change it.
pub fn resource_name(workload: &Workload) -> String {
    let (name, kind) = (workload.name(), workload.kind.to_ascii_lowercase());
    match (group(&workload.api_version), kind.as_str()) {
        ("apps", "deployment") => name.into(),
        ("apps" | "", kind) => format!("{kind}.{name}"),
        (group, kind) => format!("{kind}.{group}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(api_version: &str, kind: &str) -> Kind {
        Kind {
            api_version: api_version.into(),
            kind: kind.into(),
        }
    }

    #[test]
    fn kinds_are_read_in_order() {
        assert_eq!(
            parse(DEFAULT),
            Ok(vec![
                kind("apps/v1", "Deployment"),
                kind("apps/v1", "StatefulSet")
            ])
        );
        assert_eq!(
            parse(" v1/ReplicationController , argoproj.io/v1alpha1/Rollout,"),
            Ok(vec![
                kind("v1", "ReplicationController"),
                kind("argoproj.io/v1alpha1", "Rollout")
            ])
        );
    }

    #[test]
    fn a_wrong_kind_is_named_with_the_accepted_form() {
        for (text, named) in [
            ("Deployment", "`Deployment`"),
            ("apps/v1/Deployment,deployments", "`deployments`"),
            ("apps/v1/deployment", "`apps/v1/deployment`"),
            ("a/b/c/Kind", "`a/b/c/Kind`"),
            ("/v1/Kind", "`/v1/Kind`"),
            ("apps/v1/De ployment", "`apps/v1/De ployment`"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(
                error.contains(named) && error.contains("`kinds`") && error.contains("apps/v1/Deployment"),
                "{error}"
            );
        }
        assert!(parse(" , ").is_err());
        assert!(parse("apps/v1/Deployment,apps/v1beta1/Deployment").is_err());
    }

    #[test]
    fn names_never_meet() {
        let named = |api_version: &str, kind: &str| {
            let mut workload = Workload {
                api_version: api_version.into(),
                kind: kind.into(),
                ..Workload::default()
            };
            workload.metadata.name = "web".into();
            resource_name(&workload)
        };
        assert_eq!(named("apps/v1", "Deployment"), "web");
        assert_eq!(named("apps/v1", "StatefulSet"), "statefulset.web");
        assert_eq!(named("v1", "ReplicationController"), "replicationcontroller.web");
        assert_eq!(
            named("argoproj.io/v1alpha1", "Rollout"),
            "rollout.argoproj.io.web"
        );
        assert_eq!(
            named("example.com/v1", "Deployment"),
            "deployment.example.com.web"
        );
    }
}
