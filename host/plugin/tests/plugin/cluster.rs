//! Guests on a cluster: the services of production, on the embedded cluster.

use std::sync::Arc;

use dormouse_model::Phase;
use dormouse_plugin::types::{ResourceId, ScaleOutcome};
use dormouse_plugin::{ClusterServices, GuestError, HostServices, LifecycleError, PluginError, PluginSet};
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{Config, SleeperKey, SleeperStatus};
use dormouse_testing::{PATIENCE, Setup, World};
use tokio::time::Instant;

use crate::support::{House, config, guest, id};

struct Guests {
    world: World,
    set: PluginSet,
    _house: House,
}

impl Guests {
    async fn new() -> Self {
        let setup = Setup {
            config: Config::default(),
            replicas: 0,
            ..Setup::default()
        };
        let world = setup.start().await;
        let mut house = House::new();
        house
            .file("good.wasm", guest("bench"))
            .file("evil.wasm", guest("evil"));
        let all = "grants: {lifecycle: true, events: true, kubernetes: [{apiVersion: '*', kind: '*',
                   verbs: [get, list, create, patch, patch-status, patch-scale, apply, delete]}]}";
        house
            .configure("good", config(all))
            .configure("evil", config(all));
        let services = Arc::new(ClusterServices::new(&world.cluster));
        let set = PluginSet::load(&house.engine, house.directory.path(), &house.configs, services).await;
        assert_eq!(set.plugins().len(), 2, "{:?}", set.statuses());
        Self {
            world,
            set,
            _house: house,
        }
    }

    fn stored(&self, key: &SleeperKey) -> SleeperStatus {
        let sleeper = self
            .world
            .api
            .get("sleepers.dormouse.dev", "shop", &key.object_name())
            .unwrap();
        serde_json::from_value(sleeper["status"].clone()).unwrap_or_default()
    }

    async fn told(&self, how: &str) -> String {
        let evil = self.set.get("evil").unwrap();
        match evil.set_scale(&[], 0, how).await.unwrap_err() {
            PluginError::Guest(GuestError::Other(text)) => text,
            error => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_wishes_its_own_resources_asleep_and_awake() {
    let guests = Guests::new().await;
    let key = guests.world.declare("good").await;
    let good = guests.set.get("good").unwrap();
    let web = [id("web").into()];

    assert_eq!(
        good.set_scale(&web, 0, "idle for 15m").await.unwrap(),
        [ScaleOutcome::Accepted]
    );
    let state = guests.stored(&key).state;
    assert_eq!((state.desired, state.epoch), (DesiredState::Asleep, 0));

    assert_eq!(
        good.set_scale(&web, 1, "a request").await.unwrap(),
        [ScaleOutcome::Accepted]
    );
    let state = guests.stored(&key).state;
    assert_eq!((state.desired, state.epoch), (DesiredState::Awake, 1));

    // One that nobody declared, and one of another plugin.
    let services = ClusterServices::new(&guests.world.cluster);
    let soon = Instant::now() + PATIENCE;
    for (plugin, resource) in [("good", ResourceId::new("shop", "nobody")), ("evil", id("web"))] {
        let refused = services.sleep(plugin, &resource, "why not", soon).await;
        assert_eq!(refused, Err(LifecycleError::UnknownResource(resource.clone())));
        assert_eq!(services.state(plugin, &resource, soon).await, Ok(None));
    }
    // What is known comes from a reflector, which may be a moment behind.
    let mut changes = guests.world.cluster.signals().revision();
    let seen = async {
        loop {
            changes.borrow_and_update();
            let view = services.state("good", &id("web"), soon).await.unwrap();
            if let Some(view) = view.filter(|view| view.epoch == 1) {
                return view;
            }
            changes.changed().await.unwrap();
        }
    };
    let view = tokio::time::timeout(PATIENCE, seen).await.unwrap();
    assert_ne!(view.phase, Phase::Asleep);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reads_and_writes_objects() {
    let guests = Guests::new().await;
    let got = guests.told("get").await;
    assert!(
        got.contains(r#"\"replicas\":0"#) && !got.contains("status"),
        "only the fields that were asked for: {got}"
    );
    assert!(
        guests
            .told("list-everywhere")
            .await
            .contains(r#"\"name\":\"web\""#)
    );
    assert!(guests.told("patch-status").await.starts_with("Ok("));
    assert!(guests.told("secret").await.contains("KubernetesError::NotFound"));
    assert!(
        guests.told("slow").await.contains("KubernetesError::NotFound"),
        "a kind that does not exist"
    );

    assert_eq!(guests.told("event").await, "Ok(())");
    let events = guests.world.api.list("events", "shop");
    let event = events.iter().find(|event| event["reason"] == "Bad").unwrap();
    assert_eq!(event["type"], "Warning");
    assert!(event.to_string().contains("dormouse/evil"), "{event}");
}
