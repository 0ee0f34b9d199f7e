//! A scaler that attacks its host. The `reason` of `set-scale` and the configuration key `resources` choose how.
//!
//! Whatever it cannot do is reported in a typed error, so that tests can read it.

wit_bindgen::generate!({ path: "../../../../../wit", world: "resource-scaler-with-ingress", generate_all });

use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dormouse::plugin::kubernetes::{self, ListQuery, ObjectKey, PatchType, Subresource};
use dormouse::plugin::types::{ObjectRef, ResourceId, ResourceState};
use dormouse::plugin::{config, lifecycle, logging};
use exports::dormouse::plugin::ingress_targets::{self, PathBackend};
use exports::dormouse::plugin::scaler::{
    Guest, PluginError, Resource, ResourceHandle, ScaleOutcome, ScalerSettings, ServiceTarget,
};

struct Evil;

/// Would grow if instances were used twice.
static CALLS: AtomicU32 = AtomicU32::new(0);

impl Guest for Evil {
    fn settings() -> Result<ScalerSettings, PluginError> {
        let header = config::get("header");
        Ok(ScalerSettings {
            scale_interval: None,
            metrics_resource: None,
            target_name_header: header,
            target_path_header: None,
            target_port: None,
            readiness_timeout: None,
            multi_target_strategy: None,
            extra: Vec::new(),
        })
    }

    fn resources() -> Result<Vec<Resource>, PluginError> {
        let many = |count: usize| (0..count).map(|n| resource(&n.to_string())).collect();
        match config::get("resources").as_deref() {
            None => Ok(many(3)),
            Some("too-many") => Ok(many(11_000)),
            Some("millions") => Ok(many(5_000_000)),
            Some("huge-answer") => Ok(vec![resource(&"x".repeat(20 << 20))]),
            Some("invalid-name") => Ok(vec![resource("../../etc/passwd")]),
            Some("twice") => Ok(vec![resource("a"), resource("a")]),
            Some("one-bad-service") => {
                let mut bad = resource("bad");
                bad.services = vec!["Not A Service".into()];
                Ok(vec![bad, resource("fine")])
            }
            Some(other) => Err(PluginError::InvalidConfiguration(format!("resources: {other}"))),
        }
    }

    fn set_scale(
        resources: Vec<ResourceHandle>,
        _replicas: u32,
        reason: String,
    ) -> Result<Vec<ScaleOutcome>, PluginError> {
        let told = |text: String| Err(PluginError::Other(text));
        match reason.as_str() {
            "loop" => loop {
                black_box(());
            },
            "panic" => panic!("the cheese is gone"),
            "panic-after-noise" => {
                for line in 0..10_000 {
                    eprintln!("noise {line}");
                }
                panic!("the cheese is gone");
            }
            "exit" => std::process::exit(3),
            "allocate" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1_u8; 1 << 20]);
                    black_box(&hoard);
                }
            }
            "recurse" => told(recurse(1).to_string()),
            "recurse-widely" => told(recurse_widely(1).to_string()),
            // Without a word on stderr.
            "trap" => core::arch::wasm32::unreachable(),
            "three-outcomes" => Ok(vec![ScaleOutcome::Done, ScaleOutcome::Done, ScaleOutcome::Done]),
            "calls" => loop {
                black_box(config::get("nothing"));
            },
            "log" => {
                for line in 0..5_000 {
                    logging::log(logging::Level::Info, &format!("line {line}"), &[]);
                }
                Ok(Vec::new())
            }
            "log-once" => {
                let fields = [("resource".to_owned(), "shop/web".to_owned())];
                logging::log(
                    logging::Level::Warn,
                    "an annotation is wrong\nforged line",
                    &fields,
                );
                Ok(Vec::new())
            }
            "secret" => told(format!("{:?}", kubernetes::get(&key("v1", "Secret"), &[]))),
            "patch-status" => told(format!(
                "{:?}",
                kubernetes::patch(
                    &key("apps/v1", "Deployment"),
                    Subresource::Status,
                    PatchType::Merge,
                    "{}"
                )
            )),
            "list-everywhere" => told(format!("{:?}", kubernetes::list(&everywhere()))),
            "event" => told(format!(
                "{:?}",
                kubernetes::event(
                    &key("apps/v1", "Deployment"),
                    kubernetes::EventType::Warning,
                    "Bad",
                    "annotation"
                )
            )),
            "create-garbage" => told(format!("{:?}", kubernetes::create("{"))),
            "get" => told(format!(
                "{:?}",
                kubernetes::get(&key("apps/v1", "Deployment"), &["spec".into()])
            )),
            "slow" => told(format!("{:?}", kubernetes::get(&key("apps/v1", "Slow"), &[]))),
            "unknown-resource" => told(format!(
                "{:?}",
                lifecycle::sleep(
                    &ResourceId {
                        namespace: "shop".into(),
                        name: "nobody".into()
                    },
                    "because"
                )
            )),
            "huge-argument" => {
                let body = "x".repeat(64 << 20);
                told(format!("{:?}", kubernetes::create(&body).is_ok()))
            }
            "sleep" => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            "naps" => {
                // Many short waits are no computing.
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_millis(15));
                }
                Ok(Vec::new())
            }
            "outside" => told(outside()),
            "transient" => Err(PluginError::Transient("the platform does not answer".into())),
            _ => Ok(resources.iter().map(|_| ScaleOutcome::Done).collect()),
        }
    }

    fn service(_: ResourceHandle) -> Result<ServiceTarget, PluginError> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        Ok(ServiceTarget {
            name: format!("call-{calls}"),
            port: None,
            extra: Vec::new(),
        })
    }
}

impl ingress_targets::Guest for Evil {
    fn targets(backend: PathBackend) -> Result<Vec<ResourceId>, PluginError> {
        let count = if backend.service == "three" { 3 } else { 1 };
        Ok(vec![
            ResourceId {
                namespace: backend.namespace,
                name: backend.service
            };
            count
        ])
    }
}

/// Ends never in practice, and needs its own result to go on, so that no compiler makes a loop of it.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == 0 {
        0
    } else {
        recurse(depth + 1).rotate_left(1) ^ depth
    }
}

/// The same with a large frame, which guests keep in their own memory.
#[inline(never)]
fn recurse_widely(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == 0 {
        0
    } else {
        recurse_widely(depth + 1).rotate_left(1) ^ frame[0]
    }
}

/// What of the outside world can be reached: nothing is the answer that is hoped for.
fn outside() -> String {
    let mut found = Vec::new();
    if std::env::vars().count() > 0 || std::env::args().count() > 0 {
        found.push("environment");
    }
    if std::fs::read_dir("/").is_ok()
        || std::fs::File::create("x").is_ok()
        || std::fs::read("/etc/passwd").is_ok()
    {
        found.push("files");
    }
    if std::net::TcpStream::connect("127.0.0.1:1")
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        || std::net::TcpListener::bind("127.0.0.1:0").is_ok()
        || std::net::UdpSocket::bind("127.0.0.1:0").is_ok()
    {
        found.push("network");
    }
    let mut input = Vec::new();
    match std::io::stdin().read_to_end(&mut input) {
        Ok(0) => {}
        Ok(_) => found.push("input"),
        Err(_) => {}
    }
    format!("found: {}", found.join(", "))
}

fn key(api_version: &str, kind: &str) -> ObjectKey {
    ObjectKey {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: Some("shop".into()),
        name: "web".into(),
    }
}

fn everywhere() -> ListQuery {
    ListQuery {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: None,
        label_selector: None,
        annotation_prefix: None,
        fields: Vec::new(),
    }
}

fn resource(name: &str) -> Resource {
    Resource {
        id: ResourceId {
            namespace: "shop".into(),
            name: name.into(),
        },
        object: ObjectRef {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            namespace: None,
            name: "web".into(),
        },
        state: ResourceState::Awake,
        rules: Vec::new(),
        last_event: None,
        workloads: Vec::new(),
        services: Vec::new(),
        readiness_timeout: None,
        restore_replicas: None,
        scaling: None,
        wake_at: None,
        reason: None,
        cookie: None,
        extra: Vec::new(),
    }
}

export!(Evil);
