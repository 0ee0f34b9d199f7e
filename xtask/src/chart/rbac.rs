//! Whether the chart grants what is used, and nothing else: the rendered roles against the API server's audit log.
//!
//! Grants are single: one account, verb, group, resource with its subresource, place, and object name where the rule has some.
//! The audit log is read as JSON lines of `audit.k8s.io/v1` Events, from level Metadata up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::BufRead;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{list, objects, text};

/// One thing that one account may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// `namespace:name`, as in `system:serviceaccount:namespace:name`.
    pub account: String,
    /// The namespace of the Role; `*` for a ClusterRole that is bound in the whole cluster.
    pub place: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural, with `/subresource`.
    pub resource: String,
    /// Verb of RBAC.
    pub verb: String,
    /// The only object, if the rule names objects.
    pub name: Option<String>,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            place,
            group,
            resource,
            verb,
            name,
        } = self;
        write!(f, "{account} may {verb} {}", dotted(resource, group))?;
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        match place.as_str() {
            "*" => write!(f, " everywhere"),
            namespace => write!(f, " in {namespace}"),
        }
    }
}

/// `deployments.apps/scale`.
fn dotted(resource: &str, group: &str) -> String {
    let (plural, sub) = resource
        .split_once('/')
        .map_or((resource, None), |(plural, sub)| (plural, Some(sub)));
    let mut dotted = plural.to_owned();
    if !group.is_empty() {
        dotted = format!("{dotted}.{group}");
    }
    match sub {
        Some(sub) => format!("{dotted}/{sub}"),
        None => dotted,
    }
}

/// One kind of request that was made, as often as it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    account: String,
    group: String,
    resource: String,
    verb: String,
    namespace: String,
    name: String,
}

/// Requests that RBAC refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// `namespace:name` of the ServiceAccount.
    pub account: String,
    /// Verb.
    pub verb: String,
    /// `deployments.apps/scale`.
    pub resource: String,
    /// Namespace; empty for all of them and for objects of the cluster.
    pub namespace: String,
    /// How often.
    pub times: u64,
    /// One of the requests.
    pub example: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            verb,
            resource,
            namespace,
            times,
            example,
        } = self;
        write!(f, "{account} was refused to {verb} {resource}")?;
        match namespace.as_str() {
            "" => write!(f, " everywhere")?,
            namespace => write!(f, " in {namespace}")?,
        }
        write!(f, " ({times} times, such as {example})")
    }
}

/// A grant that a run need not use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// End of the account's name: `autoscaler`, `dlx`, `restore`.
    pub component: String,
    /// `deployments.apps/scale`.
    pub resource: String,
    /// Verb.
    pub verb: String,
    /// Why it is granted although nothing used it.
    pub why: String,
}

/// What granted and used permissions differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Granted, never used, and not excepted.
    pub unused: Vec<Grant>,
    /// Used and not granted.
    pub denied: Vec<Denied>,
    /// Exceptions for what nobody grants any more.
    pub stale: Vec<Exception>,
    /// Grants in all.
    pub granted: usize,
    /// Requests of the accounts in all.
    pub requests: u64,
}

impl Comparison {
    /// Everything that is wrong, one line each.
    pub fn wrong(&self) -> Vec<String> {
        let unused = self
            .unused
            .iter()
            .map(|grant| format!("granted and never used: {grant}"));
        let denied = self
            .denied
            .iter()
            .map(|denied| format!("used and not granted: {denied}"));
        let stale = self.stale.iter().map(|exception| {
            let Exception {
                component,
                resource,
                verb,
                ..
            } = exception;
            format!("an exception for what is not granted: {component} {verb} {resource}")
        });
        denied.chain(unused).chain(stale).collect()
    }
}

/// Compares rendered manifests with an audit log.
///
/// Requests of accounts that the manifests do not bind are of no interest. A request that was allowed counts as a use even
/// if it then failed. A refusal of what is granted is not the chart's fault: the bindings went while pods were ending, a case
/// had taken them away, or the API server had just begun and did not know them yet. What is never allowed shows as unused.
///
/// # Errors
/// When either cannot be read, or the log has no request of any of the accounts: then nothing was compared.
pub fn compare(manifests: &str, audit: impl BufRead, exceptions: &[Exception]) -> Result<Comparison> {
    let manifests = objects(manifests)?;
    let grants = grants(&manifests)?;
    let accounts: BTreeSet<&str> = grants.iter().map(|grant| grant.account.as_str()).collect();
    let mut used = BTreeSet::new();
    let mut denied: BTreeMap<(String, String, String, String), Denied> = BTreeMap::new();
    let mut requests = 0;
    for (index, line) in audit.lines().enumerate() {
        let line = line.context("the audit log cannot be read")?;
        if line.trim().is_empty() {
            continue;
        }
        // The API server may be in the middle of its last line.
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            left_out(index);
            continue;
        };
        let Some((request, allowed)) = request(&event, &accounts) else {
            continue;
        };
        requests += 1;
        if allowed {
            used.insert(request);
            continue;
        }
        if grants.iter().any(|grant| grant.allows(&request)) {
            continue;
        }
        let resource = dotted(&request.resource, &request.group);
        let key = (
            request.account.clone(),
            request.verb.clone(),
            resource.clone(),
            request.namespace.clone(),
        );
        denied
            .entry(key)
            .or_insert_with(|| Denied {
                account: request.account,
                verb: request.verb,
                resource,
                namespace: request.namespace,
                times: 0,
                example: text(&event, "/requestURI").to_owned(),
            })
            .times += 1;
    }
    if requests == 0 {
        bail!(
            "the audit log has no request of {}",
            accounts.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    let unused: Vec<Grant> = grants
        .iter()
        .filter(|grant| !used.iter().any(|request| grant.allows(request)))
        .filter(|grant| !exceptions.iter().any(|exception| exception.covers(grant)))
        .cloned()
        .collect();
    let stale = exceptions
        .iter()
        .filter(|exception| !grants.iter().any(|grant| exception.covers(grant)));
    Ok(Comparison {
        unused,
        denied: denied.into_values().collect(),
        stale: stale.cloned().collect(),
        granted: grants.len(),
        requests,
    })
}

fn left_out(index: usize) {
    eprintln!(
        "      line {} of the audit log is not complete and is left out",
        index + 1
    );
}

/// The list of exceptions: YAML, a list of `component`, `resource`, `verbs` and `why`.
///
/// # Errors
/// When it is not such a list, or a reason is missing.
pub fn exceptions(yaml: &str) -> Result<Vec<Exception>> {
    let read: Value = serde_yaml::from_str(yaml).context("the list of exceptions is not YAML")?;
    let mut exceptions = Vec::new();
    for entry in read.as_array().context("the exceptions are not a list")? {
        let (component, resource, why) = (
            text(entry, "/component"),
            text(entry, "/resource"),
            text(entry, "/why"),
        );
        let verbs = list(entry, "/verbs");
        if component.is_empty() || resource.is_empty() || why.is_empty() || verbs.is_empty() {
            bail!("an exception needs component, resource, verbs and why: {entry}");
        }
        exceptions.extend(verbs.iter().filter_map(Value::as_str).map(|verb| Exception {
            component: component.to_owned(),
            resource: resource.to_owned(),
            verb: verb.to_owned(),
            why: why.to_owned(),
        }));
    }
    Ok(exceptions)
}

impl Exception {
    fn covers(&self, grant: &Grant) -> bool {
        let account = grant
            .account
            .rsplit_once(':')
            .map_or(grant.account.as_str(), |(_, name)| name);
        (account == self.component || account.ends_with(&format!("-{}", self.component)))
            && self.resource == dotted(&grant.resource, &grant.group)
            && self.verb == grant.verb
    }
}

impl Grant {
    fn allows(&self, request: &Request) -> bool {
        self.account == request.account
            && self.verb == request.verb
            && self.group == request.group
            && self.resource == request.resource
            && (self.place == "*" || self.place == request.namespace)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
    }
}

/// Every single grant that the bindings of the manifests give to ServiceAccounts.
///
/// # Errors
/// A wildcard, or a binding to a role that is not there: neither can be compared.
pub fn grants(objects: &[Value]) -> Result<BTreeSet<Grant>> {
    let mut grants = BTreeSet::new();
    for binding in objects {
        let wide = match text(binding, "/kind") {
            "ClusterRoleBinding" => true,
            "RoleBinding" => false,
            _ => continue,
        };
        let namespace = text(binding, "/metadata/namespace");
        let place = if wide { "*" } else { namespace };
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        let role = objects.iter().find(|object| {
            text(object, "/kind") == kind
                && text(object, "/metadata/name") == name
                && (kind == "ClusterRole" || text(object, "/metadata/namespace") == namespace)
        });
        let role = role.with_context(|| format!("there is no {kind} {name}"))?;
        for subject in list(binding, "/subjects") {
            let account = format!("{}:{}", text(subject, "/namespace"), text(subject, "/name"));
            for rule in list(role, "/rules") {
                add(&mut grants, rule, &account, place)?;
            }
        }
    }
    Ok(grants)
}

fn add(grants: &mut BTreeSet<Grant>, rule: &Value, account: &str, place: &str) -> Result<()> {
    let words = |pointer| list(rule, pointer).iter().filter_map(Value::as_str);
    let names: Vec<Option<&str>> = match list(rule, "/resourceNames") {
        [] => vec![None],
        _ => words("/resourceNames").map(Some).collect(),
    };
    for group in words("/apiGroups") {
        for resource in words("/resources") {
            for verb in words("/verbs") {
                if [group, resource, verb].iter().any(|word| word.contains('*')) {
                    bail!("a wildcard cannot be compared with what is used: {rule}");
                }
                grants.extend(names.iter().map(|name| Grant {
                    account: account.to_owned(),
                    place: place.to_owned(),
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    verb: verb.to_owned(),
                    name: name.map(str::to_owned),
                }));
            }
        }
    }
    Ok(())
}

/// The request of an event, and whether it was allowed. `None`: of somebody else, not about a resource, or not yet answered.
fn request(event: &Value, accounts: &BTreeSet<&str>) -> Option<(Request, bool)> {
    let account = text(event, "/user/username").strip_prefix("system:serviceaccount:")?;
    if !accounts.contains(account) || text(event, "/stage") == "RequestReceived" {
        return None;
    }
    let object = event
        .get("objectRef")
        .filter(|object| !text(object, "/resource").is_empty())?;
    let resource = match text(object, "/subresource") {
        "" => text(object, "/resource").to_owned(),
        sub => format!("{}/{sub}", text(object, "/resource")),
    };
    let request = Request {
        account: account.to_owned(),
        group: text(object, "/apiGroup").to_owned(),
        resource,
        verb: text(event, "/verb").to_owned(),
        namespace: text(object, "/namespace").to_owned(),
        name: text(object, "/name").to_owned(),
    };
    // Admission refuses with 403 too; only the authoriser's word counts where there is one.
    let allowed = match text(event, "/annotations/authorization.k8s.io~1decision") {
        "allow" => true,
        "forbid" => false,
        _ => event.pointer("/responseStatus/code").and_then(Value::as_u64) != Some(403),
    };
    Some((request, allowed))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MANIFESTS: &str = "
kind: ClusterRole
metadata: {name: wide}
rules:
  - {apiGroups: [''], resources: [services], verbs: [get, patch]}
  - {apiGroups: [apps], resources: [deployments/scale], verbs: [update]}
---
kind: ClusterRoleBinding
metadata: {name: wide}
roleRef: {kind: ClusterRole, name: wide}
subjects: [{kind: ServiceAccount, namespace: d, name: x-dlx}]
---
kind: Role
metadata: {name: lease, namespace: d}
rules:
  - {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [one], verbs: [get]}
---
kind: RoleBinding
metadata: {name: lease, namespace: d}
roleRef: {kind: Role, name: lease}
subjects: [{kind: ServiceAccount, namespace: d, name: x-dlx}]
";

    fn event(verb: &str, group: &str, resource: &str, namespace: &str, name: &str, decision: &str) -> String {
        let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "stage": "ResponseComplete", "verb": verb,
            "requestURI": format!("/{namespace}/{resource}/{name}"),
            "user": {"username": "system:serviceaccount:d:x-dlx"},
            "objectRef": {"resource": plural, "subresource": sub, "apiGroup": group, "namespace": namespace, "name": name},
            "responseStatus": {"code": if decision == "forbid" { 403 } else { 200 }},
            "annotations": {"authorization.k8s.io/decision": decision},
        })
        .to_string()
    }

    fn everything() -> Vec<String> {
        vec![
            event("get", "", "services", "shop", "web", "allow"),
            event("patch", "", "services", "shop", "web", "allow"),
            event("update", "apps", "deployments/scale", "shop", "web", "allow"),
            event("get", "coordination.k8s.io", "leases", "d", "one", "allow"),
        ]
    }

    fn compared(lines: &[String], exceptions: &[Exception]) -> Comparison {
        compare(MANIFESTS, lines.join("\n").as_bytes(), exceptions).unwrap()
    }

    #[test]
    fn what_is_granted_and_used_is_fine() {
        let comparison = compared(&everything(), &[]);
        assert_eq!(comparison.wrong(), Vec::<String>::new());
        assert_eq!((comparison.granted, comparison.requests), (4, 4));
    }

    #[test]
    fn what_is_granted_and_not_used_is_named() {
        let unused = compared(&everything()[..2], &[]).wrong();
        assert_eq!(
            unused,
            [
                "granted and never used: d:x-dlx may update deployments.apps/scale everywhere",
                "granted and never used: d:x-dlx may get leases.coordination.k8s.io one in d",
            ]
        );
    }

    #[test]
    fn a_use_elsewhere_or_of_another_object_is_no_use() {
        let mut lines = everything();
        lines[3] = event("get", "coordination.k8s.io", "leases", "d", "other", "allow");
        assert_eq!(compared(&lines, &[]).unused.len(), 1);
        lines[3] = event("get", "coordination.k8s.io", "leases", "shop", "one", "allow");
        assert_eq!(compared(&lines, &[]).unused.len(), 1);
    }

    #[test]
    fn what_is_used_and_not_granted_is_named_once_with_how_often() {
        let mut lines = everything();
        lines.extend([1, 2].map(|_| event("delete", "", "pods", "shop", "p", "forbid")));
        assert_eq!(
            compared(&lines, &[]).wrong(),
            [
                "used and not granted: d:x-dlx was refused to delete pods in shop (2 times, such as /shop/pods/p)"
            ]
        );
    }

    #[test]
    fn a_refusal_by_admission_is_not_one_by_rbac() {
        let mut refused: Value = serde_json::from_str(&everything()[1]).unwrap();
        refused["responseStatus"]["code"] = json!(403);
        let mut lines = everything();
        lines[1] = refused.to_string();
        assert_eq!(compared(&lines, &[]).wrong(), Vec::<String>::new());
    }

    #[test]
    fn a_refusal_of_what_is_granted_does_not_count_unless_it_never_is_allowed() {
        let refused = event("get", "coordination.k8s.io", "leases", "d", "one", "forbid");
        let mut lines = everything();
        lines.push(refused.clone());
        assert_eq!(compared(&lines, &[]).wrong(), Vec::<String>::new());
        lines.retain(|line| !line.contains("leases"));
        lines.push(refused);
        let compared = compared(&lines, &[]);
        assert_eq!((compared.unused.len(), compared.denied.len()), (1, 0));
    }

    #[test]
    fn others_and_half_lines_do_not_count() {
        let mut lines = everything();
        lines.push(event("delete", "", "pods", "shop", "p", "forbid").replace("x-dlx", "somebody"));
        lines.push("{\"kind\": \"Ev".to_owned());
        assert_eq!(compared(&lines, &[]).wrong(), Vec::<String>::new());
    }

    #[test]
    fn an_empty_log_proves_nothing() {
        let error = compare(MANIFESTS, "".as_bytes(), &[]).unwrap_err().to_string();
        assert!(error.contains("no request of d:x-dlx"), "{error}");
    }

    #[test]
    fn exceptions_have_a_reason_and_are_of_use() {
        let list = "[{component: dlx, resource: deployments.apps/scale, verbs: [update], why: rare}]";
        let known = exceptions(list).unwrap();
        let mut lines = everything();
        lines.remove(2);
        assert_eq!(compared(&lines, &known).wrong(), Vec::<String>::new());
        let stale = exceptions("[{component: dlx, resource: pods, verbs: [get], why: old}]").unwrap();
        let wrong = compared(&everything(), &stale).wrong();
        assert_eq!(wrong, ["an exception for what is not granted: dlx get pods"]);
        assert!(exceptions("[{component: dlx, resource: pods, verbs: [get]}]").is_err());
    }

    #[test]
    fn a_wildcard_cannot_be_compared() {
        let wild = MANIFESTS.replace("[get, patch]", "['*']");
        assert!(
            grants(&objects(&wild).unwrap())
                .unwrap_err()
                .to_string()
                .contains("wildcard")
        );
    }
}
