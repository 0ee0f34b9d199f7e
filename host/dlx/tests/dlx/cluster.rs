//! The data plane on a cluster: routes and endpoints from the API server, and the real sleep and wake protocol.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use dormouse_dlx::cluster::Glue;
use dormouse_dlx::{AppProtocol, Dlx, DlxConfig, Metrics, NameHeaders, RouteTable};
use dormouse_embedded::{EmbeddedCluster, Options};
use dormouse_kubernetes::client_from_kubeconfig;
use dormouse_model::{ObjectRef, Phase};
use dormouse_plugin::{EngineConfig, HostEngine, NoServices, PluginSet};
use dormouse_sleepers::lifecycle::{LookPolicy, SleeperState, Timings};
use dormouse_sleepers::{Cluster, Config, Declared, Driver, Role, SleeperKey, SleeperSpec, Wake, crd};
use http::{Request, Response};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::*;

const PATIENCE: Duration = Duration::from_secs(20);

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: none, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  rules:
  - host: shop.example
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]
";

struct Shop {
    api: EmbeddedCluster,
    cluster: Cluster,
    key: SleeperKey,
    main: SocketAddr,
    routes: Arc<RouteTable>,
    _running: Vec<DropGuard>,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

impl Shop {
    /// An awake workload, and a DLX without any plugin.
    async fn open() -> Self {
        Self::with(SleeperSpec::default()).await
    }

    /// The Sleeper says this too.
    async fn with(more: SleeperSpec) -> Self {
        let api = EmbeddedCluster::start(Options::default()).await.unwrap();
        let client = client_from_kubeconfig(&api.kubeconfig()).await.unwrap();
        crd::install(&client, "dormouse", PATIENCE).await.unwrap();
        api.apply_yaml(MANIFEST).unwrap();
        api.wait_for_ready_pods("shop", "app=web", 2, PATIENCE)
            .await
            .unwrap();
        let timings = Timings {
            drain_grace: Duration::from_millis(50),
            look: LookPolicy {
                settle: Duration::from_millis(10),
                longest: Duration::from_secs(1),
            },
            ..Timings::default()
        };
        let config = Config {
            dlx_service: Some(("shop".into(), "dlx".into())),
            ingresses: true,
            timings,
            ..Config::default()
        };
        let cluster = Cluster::connect(client, config).await.unwrap();

        let address = Ipv4Addr::new(
            127,
            41,
            std::process::id().to_le_bytes()[0],
            NEXT.fetch_add(1, Ordering::SeqCst),
        );
        let engine = HostEngine::new(EngineConfig::default(), dormouse_plugin::Metrics::default()).unwrap();
        let empty = std::env::temp_dir();
        let plugins = PluginSet::load(
            &engine,
            &empty.join("dormouse-no-plugins"),
            &BTreeMap::new(),
            Arc::new(NoServices),
        )
        .await;
        let glue = Glue::new(cluster.clone(), Arc::new(plugins), None);
        let waker = glue.waker();
        let names = NameHeaders {
            name: "x-target".parse().unwrap(),
            path: None,
        };
        let dlx = Dlx::new(
            DlxConfig {
                listen_address: (address, 0).into(),
                bind_address: address.into(),
                names: Some(names),
                ..config_of_tests()
            },
            glue.routes(),
            waker,
            Metrics::default(),
        );
        let routes: Arc<RouteTable> = glue.routes();
        let server = dlx.bind().unwrap();
        let main = server.local_addr();
        let shutdown = CancellationToken::new();
        tokio::spawn(server.run(shutdown.clone()));
        tokio::spawn(glue.run(dlx.ledger().clone(), shutdown.clone()));
        for role in [Role::Leader, Role::Waker] {
            tokio::spawn(Driver::new(cluster.clone(), role).run(shutdown.clone()));
        }
        let admin = Pod::on((address, 0).into(), move |_| {
            let report = serde_json::to_string(&dlx.demand()).unwrap();
            async move { Response::new(text(report)) }
        })
        .await;
        api.apply_yaml(&dlx_service(address.into(), admin.address.port()))
            .unwrap();
        let key = SleeperKey::of_plugin("workloads", "shop", "web");
        let object = ObjectRef {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "web".into(),
        };
        let spec = SleeperSpec {
            owner: Some(dormouse_model::Owner::plugin("workloads")),
            resource: "web".into(),
            object: object.clone(),
            workloads: vec![object],
            services: vec!["web".into()],
            ..more
        };
        cluster
            .declare(&Declared {
                key: key.clone(),
                spec,
            })
            .await
            .unwrap();
        let running = shutdown.clone();
        tokio::spawn(async move {
            let _admin = admin;
            running.cancelled().await;
        });
        let shop = Self {
            api,
            cluster,
            key,
            main,
            routes,
            _running: vec![shutdown.drop_guard()],
        };
        eventually("the routes are known", || async {
            get_host(shop.main, "shop.example").await == 200
        })
        .await;
        shop
    }

    fn state(&self) -> SleeperState {
        let sleeper = self.cluster.sleeper(&self.key).unwrap();
        sleeper.status.clone().unwrap_or_default().state
    }

    async fn sleep(&self) {
        eventually("the wish is taken", || async {
            self.cluster.wish_sleep(&self.key, "test").await.is_ok()
        })
        .await;
        eventually("it sleeps", || async {
            self.state().phase == Phase::Asleep && self.state().at_zero
        })
        .await;
        assert_eq!(
            self.api.get("deployments.apps", "shop", "web").unwrap()["spec"]["replicas"],
            0
        );
    }

    async fn awake(&self) {
        let awake = || async { self.state().phase == Phase::Awake };
        assert!(soon(awake).await, "not awake but {:?}", self.state());
    }

    fn service(&self) -> SocketAddr {
        self.api.service_address("shop", "web", 8080).unwrap()
    }
}

fn config_of_tests() -> DlxConfig {
    config()
}

fn dlx_service(address: IpAddr, admin: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: dlx, namespace: shop}}
spec:
  ports: [{{name: admin, port: {admin}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: dlx-1, namespace: shop, labels: {{kubernetes.io/service-name: dlx}}}}
addressType: IPv4
endpoints: [{{addresses: [\"{address}\"], conditions: {{ready: true}}}}]
ports: [{{name: admin, port: {admin}, protocol: TCP}}]
"
    )
}

async fn get_host(main: SocketAddr, host: &str) -> u16 {
    h1(
        main,
        Request::get("/").header("host", host).body(nothing()).unwrap(),
    )
    .await
    .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_on_a_sleeping_service_is_answered_by_woken_pods() {
    let shop = Shop::open().await;
    for _ in 0..3 {
        shop.sleep().await;
        let service = shop.service();
        let requests: Vec<_> = (0..50).map(|_| tokio::spawn(get(service, "/echo"))).collect();
        for request in requests {
            assert_eq!(request.await.unwrap().status, 200);
        }
        shop.awake().await;
    }
    assert_eq!(shop.state().epoch, 3, "one wake each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingress_host_and_a_name_wake_as_well() {
    let shop = Shop::open().await;
    shop.sleep().await;
    assert_eq!(get_host(shop.main, "shop.example").await, 200);
    shop.awake().await;
    shop.sleep().await;
    let named = Request::get("/")
        .header("host", "x")
        .header("x-target", "shop/web")
        .body(nothing())
        .unwrap();
    assert_eq!(h1(shop.main, named).await.status, 200);
    assert_eq!(get_host(shop.main, "other.example").await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_that_no_plugin_can_carry_out_is_503_and_is_written_on_the_sleeper() {
    // A platform of its own scales it, and nobody knows how to ask that.
    let shop = Shop::with(SleeperSpec {
        wake: Some(Wake::Owner),
        ..SleeperSpec::default()
    })
    .await;
    shop.sleep().await;
    let reply = get(shop.service(), "/").await;
    assert_eq!((reply.status, reply.reason()), (503, "wake-failed"));
    assert!(
        reply.body.contains("plugin workloads is not there"),
        "{}",
        reply.body
    );
    eventually("the Sleeper says so", || async {
        let sleeper = shop.cluster.sleeper(&shop.key).unwrap();
        let conditions = sleeper.status.clone().unwrap_or_default().conditions;
        conditions
            .iter()
            .any(|condition| condition.type_ == "Wakeable" && condition.message.contains("is not there"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_while_only_looked_at_is_forwarded_and_ends_the_look() {
    let shop = Shop::open().await;
    let epoch = shop.state().epoch;
    eventually("the wish is taken", || async {
        shop.cluster.wish_observe(&shop.key, "look").await.is_ok()
    })
    .await;
    eventually("it is looked at", || async {
        shop.state().phase == Phase::Observing
    })
    .await;
    // The node's proxy may still lead past the DLX for a moment.
    eventually("a request comes through the DLX", || async {
        let reply = get(shop.service(), "/headers").await;
        assert_eq!(reply.status, 200);
        reply.body.contains("x-forwarded-for")
    })
    .await;
    shop.awake().await;
    assert_eq!(shop.state().epoch, epoch + 1);
    let replicas = &shop.api.get("deployments.apps", "shop", "web").unwrap()["spec"]["replicas"];
    assert_eq!(*replicas, 2, "never scaled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_service_says_of_its_port_and_of_idle_connections_is_heard_while_it_sleeps() {
    let shop = Shop::open().await;
    shop.sleep().await;
    let said = || {
        let routes = shop.routes.load();
        let port = routes.ports().next()?;
        let target = &routes.port(port)?.target;
        Some((target.protocol, target.connection_idle))
    };
    assert_eq!(
        said(),
        Some((AppProtocol::Http1, None)),
        "by the name of the port"
    );
    let change = |idle: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop, annotations: {{dormouse.dev/connection-idle: \"{idle}\"}}}}
spec:
  ports: [{{name: http, port: 8080, targetPort: http, appProtocol: redis}}]
"
        )
    };
    for (idle, heard) in [("90s", Some(Duration::from_secs(90))), ("soon", None)] {
        shop.api.apply_yaml(&change(idle)).unwrap();
        eventually("it is heard", || async {
            said() == Some((AppProtocol::Tcp, heard))
        })
        .await;
    }
}

/// What pods say is HTTP, and the Service says that it is not: the DLX copies it, and the protocol of sleep and wake is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_copied_sleep_and_wake_by_the_same_protocol_and_none_is_lost_in_twenty_turns() {
    const TURNS: i64 = 20;
    let shop = Shop::open().await;
    shop.api
        .apply_yaml(
            "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http, appProtocol: tcp}]
",
        )
        .unwrap();
    let service = shop.service();
    let (flows, over, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (flows, over, answered) = (Arc::clone(&flows), Arc::clone(&over), Arc::clone(&answered));
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    if flows.load(Ordering::SeqCst) {
                        let reply = get(service, "/headers").await;
                        assert_eq!(reply.status, 200);
                        assert!(
                            !reply.body.contains("x-forwarded-for"),
                            "nobody reads it on the way"
                        );
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    for turn in 0..TURNS {
        flows.store(false, Ordering::SeqCst);
        shop.sleep().await;
        let before = answered.load(Ordering::SeqCst);
        flows.store(true, Ordering::SeqCst);
        shop.awake().await;
        eventually("somebody was answered", || async {
            answered.load(Ordering::SeqCst) > before
        })
        .await;
        assert!(shop.state().epoch > turn, "its clients have woken it");
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    println!("{} connections, {TURNS} turns", answered.load(Ordering::SeqCst));
}
