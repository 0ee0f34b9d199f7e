//! The part of kube-proxy: a TCP forwarder for each Service port on its ClusterIP.
//!
//! It follows every EndpointSlice that names the Service, whoever manages it, and picks a random ready endpoint for
//! each new connection; without ready ones, one that is terminating but still serves. Connections stay where they
//! are when endpoints change. With no endpoint nobody listens, so clients are refused, as kube-proxy's REJECT does. One
//! difference remains: when the chosen endpoint refuses, the client is not refused but connected and then reset.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::annotations::ACTUAL_PORT;
use crate::controllers::slices::{SERVICE_NAME, TABLE as SLICES};
use crate::core::Core;
use crate::store::{Event, Key, Part, Store};
use crate::value::{at, label, list_at, set_annotation, str_at};

type Targets = Arc<Mutex<Vec<SocketAddr>>>;

struct Forwarder {
    targets: Targets,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// ClusterIP and port of a Service.
type Front = (IpAddr, u16);

#[derive(Default)]
struct Proxy {
    services: HashMap<Key, BTreeMap<Front, Forwarder>>,
    /// Where a front listened last when not on its own port.
    actual: HashMap<(Key, u16), u16>,
}

fn affected(e: &Event) -> Option<Key> {
    match e.table.as_str() {
        "services" => Some(e.key.clone()),
        SLICES => label(&e.object, SERVICE_NAME).map(|s| (e.key.0.clone(), s.to_owned())),
        _ => None,
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    let mut events = core.store.subscribe();
    let delay = core.options.programming_delay;
    let mut proxy = Proxy::default();
    let mut due: BTreeMap<Key, Instant> = crate::controllers::keys(&core.store, "services")
        .into_iter()
        .map(|k| (k, Instant::now()))
        .collect();
    loop {
        let next = due.iter().min_by_key(|(_, t)| **t).map(|(k, t)| (k.clone(), *t));
        let at = next
            .as_ref()
            .map_or_else(|| Instant::now() + Duration::from_secs(3600), |(_, t)| *t);
        tokio::select! {
            () = core.shutdown.cancelled() => break,
            () = tokio::time::sleep_until(at), if next.is_some() => {
                if let Some((key, _)) = next {
                    due.remove(&key);
                    if !proxy.program(&core, &key).await {
                        due.insert(key, Instant::now() + Duration::from_millis(200));
                    }
                }
            }
            e = events.recv() => match e {
                Ok(e) => if let Some(key) = affected(&e) {
                    due.entry(key).or_insert_with(|| Instant::now() + delay);
                },
                Err(RecvError::Lagged(_)) => {
                    let known: Vec<Key> = proxy.services.keys().cloned().collect();
                    for key in crate::controllers::keys(&core.store, "services").into_iter().chain(known) {
                        due.entry(key).or_insert_with(|| Instant::now() + delay);
                    }
                }
                Err(RecvError::Closed) => break,
            },
        }
    }
    for (_, fronts) in proxy.services {
        for (_, f) in fronts {
            f.stop.cancel();
            let _ = f.task.await;
        }
    }
}

/// Where new connections to each port of a Service go.
fn fronts(store: &Store, key: &Key) -> BTreeMap<Front, Vec<SocketAddr>> {
    let mut out = BTreeMap::new();
    let Some(svc) = store.get("services", &key.0, &key.1) else {
        return out;
    };
    // The API server is not plain TCP on a port of its own Service.
    if key.0 == "default" && key.1 == "kubernetes" {
        return out;
    }
    let Some(ip) = str_at(&svc, "spec.clusterIP").and_then(|ip| ip.parse::<IpAddr>().ok()) else {
        return out;
    };
    let slices: Vec<Arc<Value>> = store
        .all(SLICES, &key.0)
        .into_iter()
        .filter(|s| label(s, SERVICE_NAME) == Some(&key.1))
        .collect();
    for p in list_at(&svc, "spec.ports") {
        if str_at(p, "protocol").unwrap_or("TCP") != "TCP" {
            continue;
        }
        let Some(port) = p
            .get("port")
            .and_then(Value::as_u64)
            .and_then(|n| u16::try_from(n).ok())
        else {
            continue;
        };
        let name = str_at(p, "name").unwrap_or("");
        let (mut ready, mut leaving) = (Vec::new(), Vec::new());
        for s in &slices {
            let Some(target) = list_at(s, "ports")
                .iter()
                .find(|p| str_at(p, "name").unwrap_or("") == name)
                .and_then(|p| u16::try_from(p.get("port")?.as_u64()?).ok())
            else {
                continue;
            };
            for e in list_at(s, "endpoints") {
                let is = |k: &str, default: bool| {
                    at(e, &format!("conditions.{k}"))
                        .and_then(Value::as_bool)
                        .unwrap_or(default)
                };
                let addresses = list_at(e, "addresses")
                    .iter()
                    .take(1)
                    .filter_map(|a| Some(SocketAddr::new(a.as_str()?.parse().ok()?, target)));
                if is("ready", true) {
                    ready.extend(addresses);
                } else if is("serving", false) && is("terminating", false) {
                    leaving.extend(addresses);
                }
            }
        }
        let mut targets = if ready.is_empty() { leaving } else { ready };
        targets.sort_unstable();
        targets.dedup();
        out.insert((ip, port), targets);
    }
    out
}

impl Proxy {
    /// Makes the forwarders of a Service what its slices say. False: something could not be opened, try again.
    async fn program(&mut self, core: &Arc<Core>, key: &Key) -> bool {
        let wanted = fronts(&core.store, key);
        let mut current = self.services.remove(key).unwrap_or_default();
        let mut complete = true;
        let gone: Vec<Front> = current
            .keys()
            .filter(|f| wanted.get(f).is_none_or(Vec::is_empty))
            .copied()
            .collect();
        for front in gone {
            if let Some(f) = current.remove(&front) {
                f.stop.cancel();
                // The port is free again when the task has ended.
                let _ = f.task.await;
            }
        }
        for (front, targets) in wanted.into_iter().filter(|(_, t)| !t.is_empty()) {
            if let Some(f) = current.get(&front) {
                *f.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
                continue;
            }
            let (ip, port) = front;
            let again = self.actual.get(&(key.clone(), port)).copied();
            let opened = match again {
                Some(p) => TcpListener::bind((ip, p)).await.map(|l| (l, p)),
                None => core.store.addresses.listen_service(ip, port).await,
            };
            match opened {
                Ok((listener, actual)) => {
                    if actual != port && again.is_none() {
                        self.actual.insert((key.clone(), port), actual);
                        tell(&core.store, key, port, actual);
                    }
                    let targets: Targets = Arc::new(Mutex::new(targets));
                    let stop = CancellationToken::new();
                    let task =
                        core.tasks
                            .spawn(accept(core.clone(), listener, targets.clone(), stop.clone()));
                    current.insert(front, Forwarder { targets, stop, task });
                }
                Err(e) => {
                    warn!(namespace = %key.0, service = %key.1, %ip, port, error = %e, "cannot listen on the ClusterIP");
                    complete = false;
                }
            }
        }
        if core.store.get("services", &key.0, &key.1).is_none() {
            self.actual.retain(|(k, _), _| k != key);
        }
        if !current.is_empty() {
            self.services.insert(key.clone(), current);
        }
        complete
    }
}

fn tell(store: &Store, key: &Key, port: u16, actual: u16) {
    let _ = store.edit("services", &key.0, &key.1, Part::Internal, |service| {
        set_annotation(service, &format!("{ACTUAL_PORT}{port}"), &actual.to_string());
    });
}

async fn accept(core: Arc<Core>, listener: TcpListener, targets: Targets, stop: CancellationToken) {
    loop {
        let client = tokio::select! {
            () = stop.cancelled() => return,
            () = core.shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, most likely: give others the chance to close some.
                    debug!(error = %e, "accept failed");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let target = {
            let t = targets.lock().unwrap_or_else(PoisonError::into_inner);
            if t.is_empty() {
                None
            } else {
                Some(t[rand::random_range(0..t.len())])
            }
        };
        let shutdown = core.shutdown.clone();
        core.tasks.spawn(async move {
            tokio::select! {
                () = forward(client, target) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn forward(mut client: TcpStream, target: Option<SocketAddr>) {
    let server = match target {
        Some(t) => TcpStream::connect(t).await,
        None => Err(std::io::ErrorKind::ConnectionRefused.into()),
    };
    let Ok(mut server) = server else {
        // A reset, not an orderly end: the client must see an error.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    if tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .is_err()
    {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}
