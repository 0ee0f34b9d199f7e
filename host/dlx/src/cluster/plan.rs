//! What should be routed where, as plain data that can be compared.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{Owner, Phase};
use dormouse_plugin::PluginSet;
use dormouse_plugin::types::ResourceId;
use dormouse_sleepers::{Caches, Route, Sleeper, SleeperKey, Wake};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressServiceBackend};
use kube::ResourceExt;

use crate::cluster::ingress_paths::{self, NginxHosts};
use crate::cluster::resolve::{Backend, Question, Resolver};
use crate::route::patterns::compile;
use crate::{AppProtocol, HostPath, PathMatch, RouteTargetKey};

/// What is to be known of a target besides its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) owner: Owner,
    pub(super) wake: Wake,
    pub(super) resource: String,
    pub(super) readiness_timeout: Option<Duration>,
    pub(super) protocol: AppProtocol,
    pub(super) connection_idle: Option<Duration>,
}

/// Every route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) targets: BTreeMap<RouteTargetKey, Facts>,
    pub(super) ports: Vec<(u16, RouteTargetKey)>,
    pub(super) hosts: Vec<(HostPath, RouteTargetKey, Option<RouteTargetKey>)>,
    pub(super) names: Vec<(String, String, RouteTargetKey)>,
    /// Paths of Ingresses that cannot be routed, as `namespace/name host path`.
    pub(super) unclear: Vec<String>,
    /// Services whose annotation is no span of time, as `namespace/name` and its text.
    pub(super) misread: BTreeMap<String, String>,
}

impl Plan {
    pub(super) fn make(
        caches: &Caches,
        plugins: &PluginSet,
        resolver: &mut Resolver,
        target_port: Option<u16>,
    ) -> Self {
        let mut sleepers = caches.sleepers.all();
        // A port or Service that two claim belongs to the older one.
        sleepers.sort_by_cached_key(|sleeper| {
            (
                sleeper.creation_timestamp().map(|time| time.0),
                sleeper.namespace(),
                sleeper.name_any(),
            )
        });
        let mut plan = Self::default();
        let mut draft = Draft {
            caches,
            plan: &mut plan,
            taken: HashSet::new(),
            by_service: HashMap::new(),
            by_name: HashMap::new(),
        };
        for sleeper in &sleepers {
            draft.sleeper(sleeper, plugins, resolver, target_port);
        }
        let mut ingresses = caches.all_ingresses();
        ingresses.sort_by_cached_key(|ingress| {
            (
                ingress.creation_timestamp().map(|time| time.0),
                ingress.namespace(),
                ingress.name_any(),
            )
        });
        let nginx = NginxHosts::of(ingresses.iter().map(AsRef::as_ref));
        for ingress in &ingresses {
            draft.ingress(ingress, &nginx, plugins, resolver);
        }
        resolver.forget_unasked();
        plan
    }
}

struct Draft<'a> {
    caches: &'a Caches,
    plan: &'a mut Plan,
    /// DLX ports that are routed.
    taken: HashSet<u16>,
    /// The Sleeper that lists a Service.
    by_service: HashMap<(String, String), Arc<Sleeper>>,
    /// Where a resource's requests go.
    by_name: HashMap<SleeperKey, RouteTargetKey>,
}

impl Draft<'_> {
    fn sleeper(
        &mut self,
        sleeper: &Arc<Sleeper>,
        plugins: &PluginSet,
        resolver: &mut Resolver,
        target_port: Option<u16>,
    ) {
        let identity = SleeperKey::of(sleeper);
        let (namespace, resource) = (&identity.namespace, &identity.resource);
        for service in &sleeper.spec.services {
            // Whoever has it diverted is who wakes for it; otherwise the older one.
            let known = self
                .by_service
                .entry((namespace.clone(), service.clone()))
                .or_insert_with(|| Arc::clone(sleeper));
            if is_active(sleeper) && !is_active(known) {
                *known = Arc::clone(sleeper);
            }
        }
        for port in sleeper.status.iter().flat_map(|status| &status.state.ports) {
            if self.taken.insert(port.dlx_port) {
                let key = self.target(sleeper, &port.service, port.port);
                self.plan.ports.push((port.dlx_port, key));
            }
        }
        let Some(Route { service, port }) = self.route(sleeper, &identity, plugins, resolver) else {
            return;
        };
        let known = self.caches.services.get(namespace, &service);
        let Some(port) = port.or(target_port).or_else(|| only_port(known.as_deref()?)) else {
            return;
        };
        let key = self.target(sleeper, &service, port);
        self.plan
            .names
            .push((namespace.clone(), resource.clone(), key.clone()));
        self.by_name.insert(identity, key);
    }

    /// Where requests go that name the resource: as the Sleeper says.
    fn route(
        &self,
        sleeper: &Sleeper,
        identity: &SleeperKey,
        plugins: &PluginSet,
        resolver: &mut Resolver,
    ) -> Option<Route> {
        let first = || {
            let service = sleeper.spec.services.first()?.clone();
            Some(Route { service, port: None })
        };
        if let Some(route) = sleeper.spec.route.clone().or_else(first) {
            return Some(route);
        }
        // A Sleeper of a version that did not record it, of a resource whose Service only its plugin knows.
        let plugin = identity.owner.as_plugin()?;
        let answer = resolver.service(Question::Service {
            plugin: plugin.to_owned(),
            id: ResourceId::new(&identity.namespace, &identity.resource),
            cookie: sleeper.spec.cookie.clone(),
            generation: generation(plugins, plugin, sleeper),
        })?;
        let named = !answer.name.is_empty();
        Some(Route {
            service: if named {
                answer.name
            } else {
                identity.resource.clone()
            },
            port: answer.port,
        })
    }

    fn target(&mut self, sleeper: &Sleeper, service: &str, port: u16) -> RouteTargetKey {
        let key = RouteTargetKey {
            namespace: sleeper.namespace().unwrap_or_default(),
            sleeper: sleeper.name_any(),
            uid: sleeper.uid().unwrap_or_default(),
            service: service.to_owned(),
            port,
        };
        let known = self.caches.services.get(&key.namespace, service);
        let said = known.as_deref().and_then(connection_idle_text);
        let connection_idle = said.and_then(connection_idle);
        if let Some(text) = said.filter(|_| connection_idle.is_none()) {
            let service = format!("{}/{service}", key.namespace);
            self.plan.misread.insert(service, text.to_owned());
        }
        self.plan.targets.entry(key.clone()).or_insert_with(|| Facts {
            owner: sleeper.spec.owner(),
            wake: sleeper.spec.wake(),
            resource: sleeper.spec.resource.clone(),
            readiness_timeout: sleeper.spec.readiness_timeout_millis.map(Duration::from_millis),
            connection_idle,
            protocol: known.map_or(AppProtocol::Unknown, |service| protocol(&service, port)),
        });
        key
    }

    fn ingress(
        &mut self,
        ingress: &Ingress,
        nginx: &NginxHosts,
        plugins: &PluginSet,
        resolver: &mut Resolver,
    ) {
        let Some(spec) = &ingress.spec else { return };
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.clone().unwrap_or_default();
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let Some(backend) = &path.backend.service else {
                    continue;
                };
                let at = host_path(ingress, &host, path, nginx);
                let (routed, text) = (self.plan.hosts.len(), path.path.as_deref().unwrap_or("/"));
                let supported = at.kind != PathMatch::Unclear
                    && (!matches!(at.kind, PathMatch::Pattern(_)) || compile(at.kind, &at.path).is_some());
                self.path(ingress, at, backend, plugins, resolver);
                // Of those that are ours only.
                if !supported && self.plan.hosts.len() > routed {
                    let (namespace, name) = (ingress.namespace().unwrap_or_default(), ingress.name_any());
                    self.plan
                        .unclear
                        .push(format!("{namespace}/{name} {host} {text}"));
                }
            }
        }
        if let Some(backend) = spec
            .default_backend
            .as_ref()
            .and_then(|backend| backend.service.as_ref())
        {
            let at = HostPath {
                host: String::new(),
                path: "/".to_owned(),
                kind: PathMatch::Prefix,
            };
            self.path(ingress, at, backend, plugins, resolver);
        }
    }

    fn path(
        &mut self,
        ingress: &Ingress,
        at: HostPath,
        backend: &IngressServiceBackend,
        plugins: &PluginSet,
        resolver: &mut Resolver,
    ) {
        let namespace = ingress.namespace().unwrap_or_default();
        for plugin in plugins
            .plugins()
            .iter()
            .filter(|plugin| plugin.has_ingress_targets())
        {
            let question = Question::Ingress {
                plugin: plugin.name().to_owned(),
                backend: Backend {
                    namespace: namespace.clone(),
                    ingress: ingress.name_any(),
                    annotations: ingress.annotations().clone().into_iter().collect(),
                    host: at.host.clone(),
                    path: at.path.clone(),
                    service: backend.name.clone(),
                },
                generation: plugin.generation(),
            };
            let targets = resolver.targets(question);
            let named = |id: &ResourceId| {
                self.by_name
                    .get(&SleeperKey::of_plugin(plugin.name(), &id.namespace, &id.name))
                    .cloned()
            };
            let mut keys: Vec<_> = targets.iter().filter_map(named).take(2).collect();
            let second = (keys.len() == 2).then(|| keys.pop()).flatten();
            if let Some(first) = keys.pop() {
                self.plan.hosts.push((at, first, second));
                return;
            }
        }
        let Some(sleeper) = self
            .by_service
            .get(&(namespace.clone(), backend.name.clone()))
            .cloned()
        else {
            return;
        };
        let known = self.caches.services.get(&namespace, &backend.name);
        let port = backend
            .port
            .as_ref()
            .and_then(|port| match (&port.number, &port.name) {
                (Some(number), _) => u16::try_from(*number).ok(),
                (None, Some(name)) => port_named(known.as_deref()?, name),
                (None, None) => None,
            });
        if let Some(port) = port {
            let key = self.target(&sleeper, &backend.name, port);
            self.plan.hosts.push((at, key, None));
        }
    }
}

/// Whether it has, or may have, its hands on what it names.
fn is_active(sleeper: &Sleeper) -> bool {
    let status = sleeper.status.as_ref();
    status.is_some_and(|status| status.state.phase != Phase::Awake)
}

/// What an answer of a plugin about a resource depends on.
fn generation(plugins: &PluginSet, plugin: &str, sleeper: &Sleeper) -> (u64, String, i64) {
    let loaded = plugins.get(plugin).map_or(0, |plugin| plugin.generation());
    (
        loaded,
        sleeper.uid().unwrap_or_default(),
        sleeper.metadata.generation.unwrap_or_default(),
    )
}

fn host_path(ingress: &Ingress, host: &str, path: &HTTPIngressPath, nginx: &NginxHosts) -> HostPath {
    let kind = ingress_paths::reading(ingress, host, path, nginx);
    let text = path.path.as_deref().unwrap_or("/");
    // Patterns begin as they like.
    let text = if text.starts_with('/') || matches!(kind, PathMatch::Pattern(_) | PathMatch::Unclear) {
        text
    } else {
        "/"
    };
    HostPath {
        host: host.to_owned(),
        path: ingress_paths::compared(text, kind, ingress_paths::class(ingress)),
        kind,
    }
}

fn ports(service: &Service) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ServicePort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
}

fn only_port(service: &Service) -> Option<u16> {
    let mut ports = ports(service);
    let only = ports.next()?;
    if ports.next().is_some() {
        None
    } else {
        u16::try_from(only.port).ok()
    }
}

fn port_named(service: &Service, name: &str) -> Option<u16> {
    let port = ports(service).find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.port).ok()
}

fn protocol(service: &Service, number: u16) -> AppProtocol {
    let port = ports(service).find(|port| port.port == i32::from(number));
    let Some(port) = port else {
        return AppProtocol::Unknown;
    };
    match port.app_protocol.as_deref().filter(|said| !said.is_empty()) {
        Some(said) => hint(said.strip_prefix("kubernetes.io/").unwrap_or(said)),
        // By convention `protocol` or `protocol-anything`.
        None => {
            let name = port.name.as_deref().unwrap_or_default();
            hint(name.split_once('-').map_or(name, |(protocol, _)| protocol))
        }
    }
}

/// What a name of a protocol says. One that is not known here says nothing.
fn hint(said: &str) -> AppProtocol {
    match said.to_ascii_lowercase().as_str() {
        "http" | "http1" | "ws" | "grpc-web" => AppProtocol::Http1,
        "http2" | "h2c" | "grpc" => AppProtocol::H2c,
        "tcp" | "tls" | "ssl" | "https" | "https2" | "h2" | "h3" | "wss" | "grpcs" | "redis" | "rediss"
        | "mysql" | "mariadb" | "postgres" | "postgresql" | "pgsql" | "pg" | "mssql" | "oracle" | "mongo"
        | "mongodb" | "cassandra" | "cql" | "memcached" | "memcache" | "amqp" | "amqps" | "mqtt"
        | "mqtts" | "kafka" | "nats" | "stomp" | "zookeeper" | "smtp" | "smtps" | "submission" | "imap"
        | "imaps" | "pop3" | "pop3s" | "ftp" | "ftps" | "ssh" | "sftp" | "telnet" | "ldap" | "ldaps"
        | "irc" | "ircs" | "dns" | "domain" | "thrift" | "rtmp" | "rtsp" | "sip" | "sips" => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

/// Annotation of a Service: how long an open connection counts as demand after its last bytes.
pub(super) const CONNECTION_IDLE: &str = "dormouse.dev/connection-idle";

/// What the Service says of its idle connections, as text; for whoever wants to know whether that has changed.
pub(super) fn connection_idle_text(service: &Service) -> Option<&str> {
    service.annotations().get(CONNECTION_IDLE).map(String::as_str)
}

fn connection_idle(text: &str) -> Option<Duration> {
    dormouse_model::parse_duration(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(ports: &serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"ports": ports}})).unwrap()
    }

    #[test]
    fn ports_are_found_by_what_is_said_of_them() {
        let both = service(&json!([
            {"name": "http", "port": 80},
            {"name": "grpc", "port": 81, "appProtocol": "kubernetes.io/h2c"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]));
        assert_eq!(port_named(&both, "grpc"), Some(81));
        assert_eq!(port_named(&both, "dns"), None);
        assert_eq!(only_port(&both), None);
        assert_eq!(
            only_port(&service(&json!([{"port": 80}, {"port": 80, "protocol": "UDP"}]))),
            Some(80)
        );
        assert_eq!(protocol(&both, 81), AppProtocol::H2c);
        assert_eq!(protocol(&both, 80), AppProtocol::Http1);
        assert_eq!(protocol(&both, 82), AppProtocol::Unknown, "no such port");
    }

    #[test]
    fn f01_what_is_said_of_a_port_is_heard_and_silence_is_not_taken_for_http() {
        let table = [
            (json!({"port": 1}), AppProtocol::Unknown),
            (json!({"port": 1, "name": "web"}), AppProtocol::Unknown),
            (json!({"port": 1, "name": "httpish"}), AppProtocol::Unknown),
            (
                json!({"port": 1, "appProtocol": "example.com/own"}),
                AppProtocol::Unknown,
            ),
            (json!({"port": 1, "name": "http-api"}), AppProtocol::Http1),
            (json!({"port": 1, "name": "https"}), AppProtocol::Tcp),
            (json!({"port": 1, "name": "tls-a"}), AppProtocol::Tcp),
            (json!({"port": 1, "name": "redis"}), AppProtocol::Tcp),
            (json!({"port": 1, "name": "postgres-rw"}), AppProtocol::Tcp),
            (json!({"port": 1, "name": "grpc-api"}), AppProtocol::H2c),
            (
                json!({"port": 1, "name": "http", "appProtocol": "https"}),
                AppProtocol::Tcp,
            ),
            (
                json!({"port": 1, "name": "https", "appProtocol": "http"}),
                AppProtocol::Http1,
            ),
            (
                json!({"port": 1, "appProtocol": "kubernetes.io/ws"}),
                AppProtocol::Http1,
            ),
            (
                json!({"port": 1, "appProtocol": "kubernetes.io/wss"}),
                AppProtocol::Tcp,
            ),
            (json!({"port": 1, "appProtocol": "SMTP"}), AppProtocol::Tcp),
        ];
        for (port, expected) in table {
            assert_eq!(protocol(&service(&json!([port])), 1), expected, "{port}");
        }
    }

    #[test]
    fn a_service_says_how_long_idle_connections_count() {
        let annotated = |text: &str| {
            let service = json!({"metadata": {"name": "s", "annotations": {CONNECTION_IDLE: text}}});
            let service: Service = serde_json::from_value(service).unwrap();
            connection_idle_text(&service).and_then(connection_idle)
        };
        assert_eq!(annotated("90s"), Some(Duration::from_secs(90)));
        assert_eq!(annotated("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(annotated("0s"), Some(Duration::ZERO));
        assert_eq!(annotated("soon"), None);
        assert_eq!(annotated("-5m"), None);
        assert_eq!(connection_idle_text(&service(&json!([]))), None);
    }

    #[test]
    fn a_path_without_path_is_the_root() {
        let path = |value| {
            let path = serde_json::from_value(value).unwrap();
            host_path(&Ingress::default(), "h", &path, &NginxHosts::default())
        };
        let backend = json!({"service": {"name": "s"}});
        assert_eq!(
            path(json!({"pathType": "Exact", "path": "/a", "backend": backend})).kind,
            PathMatch::Exact
        );
        let root = path(json!({"pathType": "ImplementationSpecific", "backend": backend}));
        assert_eq!((root.path.as_str(), root.kind), ("/", PathMatch::Prefix));
    }
}
