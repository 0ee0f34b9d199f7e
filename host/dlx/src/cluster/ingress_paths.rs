//! What a path of an Ingress means: its type, its controller and its annotations decide together.
//!
//! `Exact` and `Prefix` are defined by the Ingress API, `ImplementationSpecific` by each controller. Where a controller documents that
//! such a path is a pattern, it is one here. Where the path looks like a pattern and the controller is not known, it
//! wakes nobody: as a literal prefix it would match nothing, and a shorter path would wake another workload.

use std::collections::HashSet;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress};
use kube::ResourceExt;

use crate::{PathMatch, Syntax};

/// Hosts on which ingress-nginx takes every path for a regular expression: it does so for a whole host as soon as one of its
/// Ingresses asks for it.
#[derive(Debug, Default)]
pub(super) struct NginxHosts(HashSet<String>);

impl NginxHosts {
    pub(super) fn of<'a>(ingresses: impl IntoIterator<Item = &'a Ingress>) -> Self {
        let mut hosts = HashSet::new();
        for ingress in ingresses
            .into_iter()
            .filter(|ingress| is_nginx(ingress) && asks_for_regex(ingress))
        {
            let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
            hosts.extend(rules.map(|rule| rule.host.clone().unwrap_or_default()));
        }
        Self(hosts)
    }
}

/// How a path of this Ingress matches.
pub(super) fn reading(
    ingress: &Ingress,
    host: &str,
    path: &HTTPIngressPath,
    nginx: &NginxHosts,
) -> PathMatch {
    let text = path.path.as_deref().unwrap_or("/");
    if is_nginx(ingress) && nginx.0.contains(host) {
        return PathMatch::Pattern(Syntax::StartAnyCase);
    }
    match annotation(ingress, "nginx.org/path-regex") {
        Some("case_sensitive") => return PathMatch::Pattern(Syntax::Start),
        Some("case_insensitive") => return PathMatch::Pattern(Syntax::StartAnyCase),
        Some("exact") => return PathMatch::Exact,
        _ => {}
    }
    match path.path_type.as_str() {
        "Exact" => return PathMatch::Exact,
        "Prefix" => return PathMatch::Prefix,
        _ => {}
    }
    let class = class(ingress);
    if let Some(matcher) = annotation(ingress, "traefik.ingress.kubernetes.io/router.pathmatcher") {
        return match matcher {
            "PathRegexp" => PathMatch::Pattern(Syntax::Anywhere),
            "Path" => literal(text, PathMatch::Exact, "{"),
            "PathPrefix" => literal(text, PathMatch::Prefix, "{"),
            _ => PathMatch::Unclear,
        };
    }
    for name in [
        "haproxy-ingress.github.io/path-type",
        "ingress.kubernetes.io/path-type",
    ] {
        match annotation(ingress, name) {
            Some("regex") => return PathMatch::Pattern(Syntax::Start),
            Some("exact") => return PathMatch::Exact,
            Some("prefix" | "begin") => return PathMatch::Prefix,
            _ => {}
        }
    }
    if is_true(ingress, "k8s.apisix.apache.org/use-regex") {
        return PathMatch::Pattern(Syntax::Start);
    }
    match class {
        "nginx" => PathMatch::Prefix,
        // Traefik 2 takes braces for a pattern, Traefik 3 does not.
        "traefik" => literal(text, PathMatch::Prefix, "{"),
        "contour" if looks_like_pattern(text) => PathMatch::Pattern(Syntax::Whole),
        "alb" if text.contains(['*', '?']) => PathMatch::Pattern(Syntax::Wildcard),
        // The AWS load balancer controller compares the whole path.
        "alb" => PathMatch::Exact,
        "kong" if text.starts_with("/~") => PathMatch::Pattern(Syntax::Start),
        "kong" => PathMatch::Prefix,
        _ if text.ends_with("/*") && !looks_like_pattern(&text[..text.len() - 1]) => PathMatch::Prefix,
        _ if looks_like_pattern(text) || text.starts_with("/~") => PathMatch::Unclear,
        _ => PathMatch::Prefix,
    }
}

/// The path as it is compared: without what only tells the controller how to read it.
pub(super) fn compared(text: &str, kind: PathMatch, class: &str) -> String {
    match kind {
        PathMatch::Pattern(Syntax::Start) if class == "kong" => text.trim_start_matches("/~").to_owned(),
        // `/*` of GCE and of older controllers.
        PathMatch::Prefix => text
            .strip_suffix("/*")
            .map_or_else(|| text.to_owned(), |up| format!("{up}/")),
        _ => text.to_owned(),
    }
}

/// Name of the Ingress' class, or of its controller where the class is named after it.
pub(super) fn class(ingress: &Ingress) -> &str {
    let spec = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref());
    spec.or_else(|| annotation(ingress, "kubernetes.io/ingress.class"))
        .unwrap_or_default()
}

fn literal(text: &str, kind: PathMatch, special: &str) -> PathMatch {
    if text.contains(special) {
        PathMatch::Unclear
    } else {
        kind
    }
}

/// ingress-nginx, by its class or by annotations that only it reads; a class may have any name.
fn is_nginx(ingress: &Ingress) -> bool {
    class(ingress) == "nginx"
        || ingress
            .annotations()
            .keys()
            .any(|key| key.starts_with("nginx.ingress.kubernetes.io/"))
}

fn asks_for_regex(ingress: &Ingress) -> bool {
    is_true(ingress, "nginx.ingress.kubernetes.io/use-regex")
        || annotation(ingress, "nginx.ingress.kubernetes.io/rewrite-target")
            .is_some_and(|target| !target.is_empty())
}

fn looks_like_pattern(text: &str) -> bool {
    text.contains(['^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\'])
}

fn annotation<'a>(ingress: &'a Ingress, name: &str) -> Option<&'a str> {
    ingress.annotations().get(name).map(String::as_str)
}

fn is_true(ingress: &Ingress, name: &str) -> bool {
    annotation(ingress, name).is_some_and(|value| matches!(value, "true" | "True" | "1" | "t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ingress(class: Option<&str>, annotations: &serde_json::Value, kind: &str, path: &str) -> Ingress {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let paths = json!([{"path": path, "pathType": kind, "backend": backend}]);
        serde_json::from_value(json!({
            "metadata": {"name": "i", "annotations": annotations},
            "spec": {"ingressClassName": class, "rules": [{"host": "h", "http": {"paths": paths}}]},
        }))
        .unwrap()
    }

    fn read(ingress: &Ingress) -> PathMatch {
        let nginx = NginxHosts::of([ingress]);
        let rule = &ingress.spec.as_ref().unwrap().rules.as_ref().unwrap()[0];
        reading(ingress, "h", &rule.http.as_ref().unwrap().paths[0], &nginx)
    }

    #[test]
    fn field_17_what_a_path_means_is_decided_by_its_controller() {
        use PathMatch::{Exact, Pattern, Prefix, Unclear};
        use Syntax::{Anywhere, Start, StartAnyCase, Whole, Wildcard};
        const SPECIFIC: &str = "ImplementationSpecific";
        let none = json!({});
        let regex = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
        let rewrite = json!({"nginx.ingress.kubernetes.io/rewrite-target": "/$2"});
        let traefik = json!({"traefik.ingress.kubernetes.io/router.pathmatcher": "PathRegexp"});
        let haproxy = json!({"haproxy-ingress.github.io/path-type": "regex"});
        let nginx_org = json!({"nginx.org/path-regex": "case_sensitive"});
        let table = [
            (None, &none, SPECIFIC, "/api", Prefix),
            (None, &none, SPECIFIC, "/api/v[0-9]+", Unclear),
            (None, &none, SPECIFIC, "/api/.*", Unclear),
            (None, &none, SPECIFIC, "/api/*", Prefix),
            (Some("own"), &none, SPECIFIC, "/a(/|$)(.*)", Unclear),
            (None, &none, "Prefix", "/a(b", Prefix),
            (None, &none, "Exact", "/a(b", Exact),
            (Some("nginx"), &none, SPECIFIC, "/a(b", Prefix),
            (
                Some("nginx"),
                &regex,
                SPECIFIC,
                "/api/v[0-9]+",
                Pattern(StartAnyCase),
            ),
            (
                Some("own"),
                &regex,
                SPECIFIC,
                "/api/v[0-9]+",
                Pattern(StartAnyCase),
            ),
            (None, &rewrite, SPECIFIC, "/a(/|$)(.*)", Pattern(StartAnyCase)),
            (None, &regex, "Prefix", "/a", Pattern(StartAnyCase)),
            (None, &regex, "Exact", "/a", Pattern(StartAnyCase)),
            (None, &traefik, SPECIFIC, "^/a/[0-9]", Pattern(Anywhere)),
            (Some("traefik"), &none, SPECIFIC, "/a", Prefix),
            (Some("traefik"), &none, SPECIFIC, "/{id:[0-9]+}", Unclear),
            (None, &haproxy, SPECIFIC, "/a[0-9]", Pattern(Start)),
            (None, &nginx_org, "Prefix", "/a[0-9]", Pattern(Start)),
            (Some("contour"), &none, SPECIFIC, "/a[0-9]", Pattern(Whole)),
            (Some("contour"), &none, SPECIFIC, "/a", Prefix),
            (Some("alb"), &none, SPECIFIC, "/a/*", Pattern(Wildcard)),
            (Some("alb"), &none, SPECIFIC, "/a", Exact),
            (Some("kong"), &none, SPECIFIC, "/~/a/[0-9]", Pattern(Start)),
        ];
        for (class, annotations, kind, path, expected) in table {
            let ingress = ingress(class, annotations, kind, path);
            assert_eq!(read(&ingress), expected, "{class:?} {annotations} {kind} {path}");
        }
    }

    #[test]
    fn field_17_one_ingress_makes_every_path_of_an_nginx_host_a_pattern() {
        let asks = ingress(
            Some("nginx"),
            &json!({"nginx.ingress.kubernetes.io/use-regex": "true"}),
            "ImplementationSpecific",
            "/a[0-9]",
        );
        let beside = ingress(Some("nginx"), &json!({}), "Prefix", "/a");
        let other = ingress(Some("traefik"), &json!({}), "Prefix", "/a");
        let nginx = NginxHosts::of([&asks, &beside, &other]);
        let of = |ingress: &Ingress, host: &str| {
            let rule = &ingress.spec.as_ref().unwrap().rules.as_ref().unwrap()[0];
            reading(ingress, host, &rule.http.as_ref().unwrap().paths[0], &nginx)
        };
        assert_eq!(of(&beside, "h"), PathMatch::Pattern(Syntax::StartAnyCase));
        assert_eq!(of(&beside, "elsewhere"), PathMatch::Prefix);
        assert_eq!(of(&other, "h"), PathMatch::Prefix);
    }

    #[test]
    fn what_only_tells_how_to_read_a_path_is_left_out() {
        assert_eq!(compared("/~/a", PathMatch::Pattern(Syntax::Start), "kong"), "/a");
        assert_eq!(compared("/a/*", PathMatch::Prefix, ""), "/a/");
        assert_eq!(compared("/a", PathMatch::Prefix, ""), "/a");
    }
}
