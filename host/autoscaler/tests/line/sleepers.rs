//! A Sleeper for every resource, and none for what is no longer one.

use std::time::Duration;

use dormouse_model::{Owner, OwnerKind, Phase, Routing};
use dormouse_plugin::types::{Resource, ResourceState};
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{Route, SleeperSpec, StoodIn, Wake};

use crate::fakes::{Answer, lock};
use crate::harness::*;

fn web() -> Resource {
    resource("shop", "web", vec![custom("requests", 10, "0")])
}

#[tokio::test(start_paused = true)]
async fn a_resource_gets_a_sleeper_that_says_what_the_plugin_said() {
    let mut world = World::new();
    let mut declared = web();
    declared.readiness_timeout = Some(Duration::from_millis(90_500));
    declared.restore_replicas = Some(4);
    let plugin = world.plugin("workloads", vec![declared.clone()]);
    world.run(&[&plugin]);
    minutes(3).await;
    let key = plugin.key("shop", "web");
    let spec = world.cluster.sleeper(&key).unwrap().spec;
    assert_eq!(spec.owner, Some(Owner::plugin("workloads")));
    // For processes of the version before.
    assert_eq!(spec.plugin.as_deref(), Some("workloads"));
    assert_eq!((spec.wake, spec.route), (Some(Wake::Lifecycle), None));
    assert_eq!(spec.object.name, "web");
    assert_eq!(spec.workloads.len(), 1);
    assert_eq!(spec.services, ["web"]);
    assert_eq!(
        (spec.readiness_timeout_millis, spec.restore_replicas),
        (Some(90_500), Some(4))
    );
    assert_eq!(world.cluster.written("declare"), 1, "once");

    declared.restore_replicas = None;
    plugin.list(vec![declared]);
    minutes(1).await;
    assert_eq!(world.cluster.sleeper(&key).unwrap().spec.restore_replicas, None);
}

#[rstest::rstest]
#[case(Phase::Diverting)]
#[case(Phase::Observing)]
#[case(Phase::Draining)]
#[case(Phase::Asleep)]
#[case(Phase::Waking)]
#[case(Phase::Ready)]
#[tokio::test(start_paused = true)]
async fn field_02_what_joins_is_taken_in_in_every_phase(#[case] phase: Phase) {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    let desired = if phase.is_away() {
        DesiredState::Asleep
    } else {
        DesiredState::Awake
    };
    world
        .cluster
        .edit_state(&key, |state| (state.phase, state.desired) = (phase, desired));
    plugin.list(vec![Resource {
        services: vec!["second".into(), "web".into()],
        ..web()
    }]);
    minutes(1).await;
    let spec = world.cluster.sleeper(&key).unwrap().spec;
    assert_eq!(spec.services, ["web", "second"]);
    assert_eq!(world.cluster.state(&key).phase, phase, "nobody is woken for that");
}

#[tokio::test(start_paused = true)]
async fn field_02_what_is_taken_away_is_restored_by_a_wake_and_then_left_out() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired) = (Phase::Asleep, DesiredState::Asleep)
    });
    plugin.list(vec![Resource {
        services: vec!["other".into()],
        restore_replicas: Some(2),
        ..web()
    }]);
    minutes(1).await;
    let spec = world.cluster.sleeper(&key).unwrap().spec;
    assert_eq!(spec.services, ["web", "other"], "or it were never restored");
    assert_eq!(spec.restore_replicas, Some(2));
    let state = world.cluster.state(&key);
    assert_eq!(state.phase, Phase::Waking);
    assert!(state.reason.contains("Service web"), "{}", state.reason);

    world.cluster.carry_through();
    minutes(1).await;
    assert_eq!(world.cluster.sleeper(&key).unwrap().spec.services, ["other"]);
}

#[tokio::test(start_paused = true)]
async fn field_02_a_service_that_is_gone_wakes_nobody() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired) = (Phase::Asleep, DesiredState::Asleep)
    });
    lock(&world.cluster.no_services).insert("web".into());
    plugin.list(vec![Resource {
        services: vec!["other".into()],
        ..web()
    }]);
    minutes(2).await;
    assert_eq!(world.cluster.state(&key).phase, Phase::Asleep);
    assert_eq!(
        world.cluster.sleeper(&key).unwrap().spec.services,
        ["web", "other"]
    );
}

#[tokio::test(start_paused = true)]
async fn field_02_a_change_brings_the_next_round_soon_but_not_one_each() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    plugin.list(vec![Resource {
        services: vec!["web".into(), "second".into()],
        ..web()
    }]);
    pass(Duration::from_millis(1500)).await;
    let services = || world.cluster.sleeper(&key).unwrap().spec.services;
    assert_eq!(services(), ["web"], "nobody knows yet");
    world.cluster.changes.send_modify(|count| *count += 1);
    pass(Duration::from_millis(1500)).await;
    assert_eq!(services(), ["web", "second"]);

    let calls = || lock(&plugin.resources_calls).len();
    let rounds = calls();
    for _ in 0..100 {
        world.cluster.changes.send_modify(|count| *count += 1);
        pass(Duration::from_millis(50)).await;
    }
    assert!(
        calls() - rounds <= 11,
        "{} rounds in five seconds",
        calls() - rounds
    );
}

#[tokio::test(start_paused = true)]
async fn field_04_what_is_at_zero_without_us_is_put_to_sleep_without_asking_rules() {
    let mut world = World::new();
    let born = Resource {
        state: ResourceState::Asleep,
        ..web()
    };
    let plugin = world.plugin("workloads", vec![born]);
    world.run(&[&plugin]);
    minutes(2).await;
    assert_eq!(
        world.cluster.state(&plugin.key("shop", "web")).desired,
        DesiredState::Asleep
    );
    assert_eq!(world.cluster.written("look at zero"), 1, "once");
}

#[tokio::test(start_paused = true)]
async fn field_04_what_was_turned_off_says_so_and_takes_it_back() {
    let mut world = World::new();
    let off = Resource {
        state: ResourceState::Asleep,
        ..web()
    };
    let plugin = world.plugin("workloads", vec![off]);
    lock(&world.cluster.zero).insert("shop/web".into(), StoodIn::TurnedOff);
    world.run(&[&plugin]);
    minutes(3).await;
    let key = plugin.key("shop", "web");
    let (status, reason, message) = world.cluster.condition(&key, "Wakeable").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TurnedOff"));
    assert!(message.contains("dormouse.dev/at-zero"), "{message}");
    let told = lock(&world.cluster.events).clone();
    assert_eq!(
        told.iter().filter(|(_, reason)| reason == "TurnedOff").count(),
        1,
        "{told:?}"
    );
    assert_eq!(world.cluster.state(&key).phase, Phase::Awake);

    plugin.list(vec![web()]);
    minutes(1).await;
    assert_eq!(world.cluster.condition(&key, "Wakeable").unwrap().0, "True");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_listed_any_more_is_retired_but_only_if_the_plugin_answered() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web(), resource("shop", "other", vec![])]);
    let stranger = world.plugin("stranger", vec![resource("shop", "third", vec![])]);
    world.run(&[&plugin, &stranger]);
    minutes(1).await;
    assert_eq!(world.cluster.keys().len(), 3);

    plugin.fail(error("wall_timeout"));
    minutes(10).await;
    assert_eq!(
        world.cluster.keys().len(),
        3,
        "an error says nothing about any of them"
    );
    assert_eq!(
        world
            .cluster
            .condition(&plugin.key("shop", "web"), "PluginHealthy")
            .unwrap()
            .1,
        "WallTimeout"
    );
    assert_eq!(
        world
            .cluster
            .condition(&stranger.key("shop", "third"), "PluginHealthy"),
        None
    );
    assert_eq!(world.cluster.written("conditions"), 2, "once for each");

    plugin.list(vec![web()]);
    minutes(1).await;
    let keys = world.cluster.keys();
    assert_eq!(keys, [stranger.key("shop", "third"), plugin.key("shop", "web")]);
    assert_eq!(
        world
            .cluster
            .condition(&plugin.key("shop", "web"), "PluginHealthy")
            .unwrap()
            .0,
        "True"
    );
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_recovers_says_so_on_what_sleeps_too() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired) = (Phase::Asleep, DesiredState::Asleep)
    });
    plugin.fail(error("panicked"));
    minutes(1).await;
    assert_eq!(world.cluster.condition(&key, "PluginHealthy").unwrap().0, "False");
    plugin.list(vec![web()]);
    minutes(1).await;
    assert_eq!(world.cluster.condition(&key, "PluginHealthy").unwrap().0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_was_removed_leaves_no_sleepers() {
    let mut world = World::new();
    let removed = world.plugin("removed", vec![web()]);
    let stays = world.plugin("stays", vec![resource("shop", "stays", vec![])]);
    let first = world.run(&[&removed, &stays]);
    minutes(1).await;
    first.abort();

    world.roster.ready.remove(&Owner::plugin("removed"));
    world.run(&[&stays]);
    minutes(1).await;
    assert_eq!(world.cluster.keys(), [stays.key("shop", "stays")]);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_could_not_be_loaded_keeps_its_sleepers() {
    let mut world = World::new();
    let broken = world.plugin("broken", vec![web()]);
    let first = world.run(&[&broken]);
    minutes(1).await;
    first.abort();
    world.cluster.forget_writes();

    world.roster.ready.clear();
    world
        .roster
        .failed
        .insert(Owner::plugin("broken"), error("not_a_component"));
    world.run(&[]);
    minutes(10).await;
    let key = broken.key("shop", "web");
    let (_, reason, message) = world.cluster.condition(&key, "PluginHealthy").unwrap();
    assert_eq!(reason, "NotAComponent");
    assert!(message.contains("plugin broken is not loaded"), "{message}");
    assert_eq!(world.cluster.writes.lock().unwrap().len(), 1, "and says so once");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_could_not_be_read_says_nothing_about_plugins() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    let first = world.run(&[&plugin]);
    minutes(1).await;
    first.abort();
    world.roster.ready.clear();
    world.roster.complete.clear();
    world.run(&[]);
    minutes(10).await;
    assert_eq!(world.cluster.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sleeper_of_the_version_before_is_taken_over_as_it_is() {
    let mut world = World::new();
    let plugin = world.plugin(
        "workloads",
        vec![Resource {
            state: ResourceState::Asleep,
            ..web()
        }],
    );
    let first = world.run(&[&plugin]);
    minutes(1).await;
    first.abort();
    let key = plugin.key("shop", "web");
    world.cluster.edit(&key, |sleeper| {
        sleeper.spec = SleeperSpec {
            owner: None,
            wake: None,
            route: None,
            ..sleeper.spec.clone()
        };
    });
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired, state.epoch) = (Phase::Asleep, DesiredState::Asleep, 7);
    });
    let before = world.cluster.state(&key);
    world.cluster.forget_writes();
    world.run(&[&plugin]);
    minutes(5).await;
    assert_eq!(world.cluster.keys(), std::slice::from_ref(&key));
    assert_eq!(
        world.cluster.sleeper(&key).unwrap().spec.owner,
        Some(Owner::plugin("workloads"))
    );
    assert_eq!(world.cluster.state(&key), before, "and nothing was woken");
    assert_eq!(world.cluster.written("declare"), 1);
    assert_eq!(world.cluster.written("retire") + world.cluster.written("wake"), 0);
}

#[tokio::test(start_paused = true)]
async fn owners_of_a_kind_that_nobody_knows_keep_their_sleepers() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    let first = world.run(&[&plugin]);
    minutes(1).await;
    first.abort();
    let key = plugin.key("shop", "web");
    let owner = Owner {
        kind: OwnerKind::ScaledObject,
        name: "web".into(),
        uid: None,
    };
    world
        .cluster
        .edit(&key, |sleeper| sleeper.spec.owner = Some(owner));
    world.run(&[]);
    minutes(10).await;
    assert_eq!(world.cluster.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_diverted_is_woken_by_the_protocol_whatever_its_source_lists() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    world.run(&[&plugin]);
    minutes(1).await;
    let key = plugin.key("shop", "web");
    world.cluster.edit_state(&key, |state| {
        (state.phase, state.desired) = (Phase::Asleep, DesiredState::Asleep);
    });
    plugin.list(vec![Resource {
        state: ResourceState::Asleep,
        workloads: vec![],
        services: vec![],
        ..web()
    }]);
    minutes(1).await;
    let spec = world.cluster.sleeper(&key).unwrap().spec;
    assert_eq!(
        (spec.workloads.len(), spec.services.len()),
        (1, 1),
        "to be restored"
    );
    assert_eq!(spec.wake, Some(Wake::Lifecycle));
}

#[tokio::test(start_paused = true)]
async fn where_requests_go_is_asked_once_and_kept_on_the_sleeper() {
    let route = |service: &str| Route {
        service: service.into(),
        port: Some(80),
    };
    let to = |service: &str| Routing::To {
        service: service.into(),
        port: Some(80),
    };
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web()]);
    let said = |world: &World| {
        world
            .cluster
            .sleeper(&plugin.key("shop", "web"))
            .unwrap()
            .spec
            .route
    };
    *plugin.route.lock().unwrap() = Ok(to("front"));
    let first = world.run(&[&plugin]);
    minutes(10).await;
    assert_eq!(said(&world), Some(route("front")));
    assert_eq!(*plugin.route_calls.lock().unwrap(), ["shop/web"]);

    // Another process asks again. As long as there is no answer, what is known stays.
    first.abort();
    *plugin.route.lock().unwrap() = Err(error("transient"));
    world.run(&[&plugin]);
    minutes(5).await;
    assert_eq!(said(&world), Some(route("front")));
    *plugin.route.lock().unwrap() = Ok(to("back"));
    minutes(2).await;
    assert_eq!(said(&world), Some(route("back")));

    // A resource that changes may be reached elsewhere.
    let asked = plugin.route_calls.lock().unwrap().len();
    *plugin.route.lock().unwrap() = Ok(Routing::First);
    plugin.list(vec![Resource {
        restore_replicas: Some(2),
        ..web()
    }]);
    minutes(5).await;
    assert_eq!(said(&world), None);
    assert_eq!(plugin.route_calls.lock().unwrap().len(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn other_namespaces_are_not_looked_after() {
    let mut world = World::new();
    let plugin = world.plugin("workloads", vec![web(), resource("bank", "web", vec![])]);
    *world.cluster.only_namespace.lock().unwrap() = Some("shop".into());
    world.run(&[&plugin]);
    minutes(1).await;
    assert_eq!(world.cluster.keys(), [plugin.key("shop", "web")]);
}

#[tokio::test(start_paused = true)]
async fn a_description_that_cannot_be_used_is_shown_on_the_sleeper() {
    let mut world = World::new();
    let plugin = world.plugin(
        "workloads",
        vec![Resource {
            problem: Some("a threshold is missing".into()),
            rules: vec![],
            ..web()
        }],
    );
    world.api.says(
        "apps/Deployment/shop/requests_per_10m",
        Answer::Values(vec![("web", "0")]),
    );
    world.run(&[&plugin]);
    minutes(2).await;
    let key = plugin.key("shop", "web");
    let (_, reason, message) = world.cluster.condition(&key, "PluginHealthy").unwrap();
    assert_eq!(
        (&*reason, &*message),
        ("InvalidDescription", "a threshold is missing")
    );
    assert!(plugin.slept().is_empty());
}
