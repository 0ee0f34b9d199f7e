//! From a request to its target, by an immutable snapshot.
//!
//! On a DLX port the port alone decides. On the main listener an Ingress host and path come first and the target-name header
//! second, as in v3io's scaler: a client can name a target by header only where no Ingress has an opinion. No header
//! that a client sends ever becomes an address.

mod hosts;
mod names;
mod normal;
pub(crate) mod patterns;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use tokio::sync::watch;

pub use hosts::HostPath;
pub use patterns::{PathMatch, Syntax};

use crate::rescue::Rescue;
use crate::{NameHeaders, RouteTarget, Strategy};
use hosts::Hosts;
use names::Names;

/// What a DLX port stands in for.
#[derive(Clone, Debug)]
pub struct PortRoute {
    /// Where requests on that port go.
    pub target: Arc<RouteTarget>,
}

/// One or two targets; with two, the strategy decides.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) first: Arc<RouteTarget>,
    pub(crate) second: Option<Arc<RouteTarget>>,
}

/// An immutable snapshot of every route.
#[derive(Debug, Default)]
pub struct Routes {
    ports: HashMap<u16, PortRoute>,
    hosts: Hosts,
    names: Names,
}

impl Routes {
    /// Routes a DLX port. A port that is routed already stays as it is: false.
    pub fn add_port(&mut self, port: u16, route: PortRoute) -> bool {
        let vacant = !self.ports.contains_key(&port);
        self.ports.entry(port).or_insert(route);
        vacant
    }

    /// Routes a host and path of an Ingress to one target or, by the multi-target strategy, to two. What is routed already
    /// stays as it is, so add older Ingresses first: false.
    pub fn add_host(
        &mut self,
        at: HostPath,
        target: Arc<RouteTarget>,
        second: Option<Arc<RouteTarget>>,
    ) -> bool {
        self.hosts.add(
            at,
            Choice {
                first: target,
                second,
            },
        )
    }

    /// Lets `namespace/name` and, as long as it is unambiguous, `name` find a target.
    pub fn add_name(&mut self, namespace: &str, name: &str, target: Arc<RouteTarget>) {
        self.names.add(namespace, name, target);
    }

    /// The DLX ports that should be open.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// What a DLX port stands in for.
    pub fn port(&self, port: u16) -> Option<&PortRoute> {
        self.ports.get(&port)
    }
}

/// Where the current snapshot is kept and new ones are announced.
#[derive(Debug)]
pub struct RouteTable {
    current: ArcSwap<Routes>,
    changed: watch::Sender<u64>,
}

impl Default for RouteTable {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl RouteTable {
    /// Replaces the snapshot. Requests that are under way keep the target that they found.
    pub fn publish(&self, routes: Routes) {
        self.current.store(Arc::new(routes));
        self.changed.send_modify(|version| *version += 1);
    }

    /// The current snapshot.
    pub fn load(&self) -> Guard<Arc<Routes>> {
        self.current.load()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) target: Arc<RouteTarget>,
    /// The other target of a pair: it is woken, and nobody waits for it.
    pub(crate) companion: Option<Arc<RouteTarget>>,
    /// A path to use instead of the request's own.
    pub(crate) path: Option<PathAndQuery>,
}

impl Routed {
    fn choose(choice: Choice, strategy: Strategy, path: Option<PathAndQuery>) -> Self {
        let (target, companion) = match (choice.second, strategy) {
            (None, _) => (choice.first, None),
            (Some(second), Strategy::Primary) => (choice.first, Some(second)),
            (Some(second), Strategy::Canary) => (second, Some(choice.first)),
            (Some(second), Strategy::Random) if rand::random() => (choice.first, Some(second)),
            (Some(second), Strategy::Random) => (second, Some(choice.first)),
        };
        Self {
            target,
            companion,
            path,
        }
    }
}

/// Routes a request of a DLX port.
pub(crate) fn by_port(routes: &Routes, port: u16) -> Result<Routed, Rescue> {
    let route = routes.ports.get(&port).ok_or(Rescue::NoRoute)?;
    Ok(Routed {
        target: Arc::clone(&route.target),
        companion: None,
        path: None,
    })
}

/// Routes a request of the main listener.
pub(crate) fn by_request(
    routes: &Routes,
    request: &Parts,
    names: Option<&NameHeaders>,
    strategy: Strategy,
) -> Result<Routed, Rescue> {
    let host = host(request).unwrap_or_default();
    if let Some(choice) = routes.hosts.find(host, request.uri.path())? {
        return Ok(Routed::choose(choice.clone(), strategy, None));
    }
    let named = names.and_then(|names| Some((names, request.headers.get(&names.name)?)));
    let Some((names, value)) = named else {
        return Err(Rescue::NoRoute);
    };
    let choice = routes.names.find(value)?;
    let path = match names.path.as_ref().and_then(|path| request.headers.get(path)) {
        Some(prefix) => Some(names::join(prefix, &request.uri)?),
        None => None,
    };
    Ok(Routed::choose(choice, strategy, path))
}

/// The host that a request is for, without port: of the request line if it has one, else of the `Host` field.
fn host(request: &Parts) -> Option<&str> {
    if let Some(authority) = request.uri.authority() {
        let host = authority.host();
        return Some(host.trim_start_matches('[').trim_end_matches(']'));
    }
    let host = request.headers.get(HOST)?.to_str().ok()?;
    let bare = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or(v6, |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    Some(bare)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{DemandCounters, EndpointsView, RouteTargetKey, RouteTargetSpec};
    use http::Request;

    pub(crate) fn target(name: &str) -> Arc<RouteTarget> {
        target_at(name, watch::channel(Arc::default()).1)
    }

    pub(crate) fn target_at(name: &str, endpoints: watch::Receiver<Arc<EndpointsView>>) -> Arc<RouteTarget> {
        let key = RouteTargetKey {
            namespace: "ns".into(),
            sleeper: name.into(),
            uid: name.into(),
            service: name.into(),
            port: 80,
        };
        let spec = RouteTargetSpec {
            key,
            owner: dormouse_model::Owner::plugin("test"),
            wake: dormouse_sleepers::Wake::Lifecycle,
            resource: name.into(),
            readiness_timeout: None,
            protocol: crate::AppProtocol::Http1,
            connection_idle: None,
            endpoints,
        };
        RouteTarget::new(&DemandCounters::default(), spec)
    }

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn names() -> NameHeaders {
        NameHeaders {
            name: "x-target".parse().unwrap(),
            path: Some("x-path".parse().unwrap()),
        }
    }

    fn pair() -> Routes {
        let mut routes = Routes::default();
        routes.add_name("ns", "one", target("one"));
        routes.add_name("ns", "two", target("two"));
        routes
    }

    fn named(header: &str, strategy: Strategy) -> Result<(String, Option<String>), Rescue> {
        let request = parts(Request::get("/").header("x-target", header));
        let routed = by_request(&pair(), &request, Some(&names()), strategy)?;
        Ok((
            routed.target.resource.clone(),
            routed.companion.map(|target| target.resource.clone()),
        ))
    }

    #[test]
    fn the_strategy_chooses_among_two() {
        let (one, two) = ("one".to_owned(), "two".to_owned());
        assert_eq!(named("one", Strategy::Canary), Ok((one.clone(), None)));
        assert_eq!(
            named("one,two", Strategy::Primary),
            Ok((one.clone(), Some(two.clone())))
        );
        assert_eq!(
            named("one, ns/two", Strategy::Canary),
            Ok((two.clone(), Some(one.clone())))
        );
        let mut seen: Vec<_> = (0..64)
            .map(|_| named("one,two", Strategy::Random).unwrap().0)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [one, two], "both get their share");
    }

    #[test]
    fn the_name_header_means_nothing_unless_it_is_configured() {
        let request = parts(Request::get("/").header("x-target", "one"));
        assert_eq!(
            by_request(&pair(), &request, None, Strategy::Primary).unwrap_err(),
            Rescue::NoRoute
        );
    }

    #[test]
    fn an_ingress_has_the_first_word() {
        let mut routes = pair();
        let at = HostPath {
            host: "shop.example".into(),
            path: "/".into(),
            kind: PathMatch::Prefix,
        };
        routes.add_host(at, target("shop"), None);
        let request = parts(
            Request::get("/")
                .header("host", "Shop.Example:8080")
                .header("x-target", "one"),
        );
        let routed = by_request(&routes, &request, Some(&names()), Strategy::Primary).unwrap();
        assert_eq!(routed.target.resource, "shop");
    }

    #[test]
    fn the_path_header_goes_before_the_path() {
        let request = parts(
            Request::get("/b?c=d")
                .header("x-target", "one")
                .header("x-path", "/a/"),
        );
        let routed = by_request(&pair(), &request, Some(&names()), Strategy::Primary).unwrap();
        assert_eq!(routed.path.unwrap(), "/a/b?c=d");
    }

    #[test]
    fn the_host_is_found_in_every_form() {
        let forms = [
            (Request::get("/").header("host", "a.b"), Some("a.b")),
            (Request::get("/").header("host", "a.b:80"), Some("a.b")),
            (Request::get("/").header("host", "[::1]:80"), Some("::1")),
            (
                Request::get("http://line.b/").header("host", "field.b"),
                Some("line.b"),
            ),
            (Request::get("http://[::1]:80/"), Some("::1")),
            (Request::get("/"), None),
        ];
        for (request, expected) in forms {
            assert_eq!(host(&parts(request)), expected);
        }
    }
}
