//! The data plane on a cluster: routes and endpoints from the API server, and the real sleep and wake protocol.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use dormouse_dlx::cluster::RouteController;
use dormouse_dlx::{AppProtocol, Dlx, DlxConfig, Metrics, NameHeaders, RouteTable};
use dormouse_model::Phase;
use dormouse_plugin::{EngineConfig, HostEngine, NoServices, PluginSet};
use dormouse_sleepers::lifecycle::SleeperState;
use dormouse_sleepers::{Config, Role, SleeperSpec, Wake};
use dormouse_testing::{Setup, World, dlx_service};
use http::{Request, Response};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{Pod, config, eventually, get, h1, nothing, soon, text};

const INGRESS: &str = "
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
    world: World,
    main: SocketAddr,
    routes: Arc<RouteTable>,
    _running: DropGuard,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

impl Shop {
    /// An awake workload, and a DLX without any plugin.
    async fn open() -> Self {
        Self::with(SleeperSpec::default()).await
    }

    /// The Sleeper says this too.
    async fn with(more: SleeperSpec) -> Self {
        let world = Setup {
            config: Config {
                ingresses: true,
                ..dormouse_testing::config()
            },
            manifests: INGRESS.into(),
            ..Setup::default()
        };
        let world = world.start().await;
        let process = std::process::id().to_le_bytes()[0];
        let address = Ipv4Addr::new(127, 41, process, NEXT.fetch_add(1, Ordering::SeqCst));
        let engine = HostEngine::new(EngineConfig::default(), dormouse_plugin::Metrics::default()).unwrap();
        let none = std::env::temp_dir().join("dormouse-no-plugins");
        let plugins = PluginSet::load(&engine, &none, &BTreeMap::new(), Arc::new(NoServices)).await;
        let controller = RouteController::new(&world.cluster, Arc::new(plugins), None);
        let waker = controller.waker();
        let names = NameHeaders {
            name: "x-target".parse().unwrap(),
            path: None,
        };
        let dlx = Dlx::new(
            DlxConfig {
                listen_address: (address, 0).into(),
                bind_address: address.into(),
                names: Some(names),
                ..config()
            },
            controller.routes(),
            waker,
            Metrics::default(),
        );
        let routes: Arc<RouteTable> = controller.routes();
        let server = dlx.bind().unwrap();
        let main = server.local_addr();
        let shutdown = CancellationToken::new();
        tokio::spawn(server.run(shutdown.clone()));
        tokio::spawn(controller.run(dlx.demand_counters().clone(), shutdown.clone()));
        for role in [Role::Leader, Role::Waker] {
            tokio::spawn(world.cluster.controller(role).run(shutdown.clone()));
        }
        let admin = Pod::on((address, 0).into(), move |_| {
            let report = serde_json::to_string(&dlx.demand()).unwrap();
            async move { Response::new(text(report)) }
        })
        .await;
        let service = dlx_service(&[address], admin.address.port());
        world.api.apply_yaml(&service).unwrap();
        world.declare_more("workloads", more).await;
        let running = shutdown.clone();
        tokio::spawn(async move {
            let _admin = admin;
            running.cancelled().await;
        });
        let shop = Self {
            world,
            main,
            routes,
            _running: shutdown.drop_guard(),
        };
        eventually("the routes are known", || async {
            get_host(shop.main, "shop.example").await == 200
        })
        .await;
        shop
    }

    fn state(&self) -> SleeperState {
        self.world.state()
    }

    async fn sleep(&self) {
        eventually("the request is taken", || async {
            let world = &self.world;
            world
                .cluster
                .desired()
                .request_sleep(&world.key, "test")
                .await
                .is_ok()
        })
        .await;
        self.world.until_asleep().await;
        assert_eq!(self.world.replicas(), 0);
    }

    async fn awake(&self) {
        let awake = || async { self.state().phase == Phase::Awake };
        assert!(soon(awake).await, "not awake but {:?}", self.state());
    }

    fn service(&self) -> SocketAddr {
        self.world.address()
    }
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
        let sleeper = shop.world.cluster.caches().sleeper(&shop.world.key).unwrap();
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
    eventually("the request is taken", || async {
        shop.world
            .cluster
            .desired()
            .request_observation(&shop.world.key, "look")
            .await
            .is_ok()
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
    assert_eq!(shop.world.replicas(), 2, "never scaled");
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
        shop.world.api.apply_yaml(&change(idle)).unwrap();
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
    shop.world
        .api
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
