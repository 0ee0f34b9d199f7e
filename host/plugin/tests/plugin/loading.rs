//! What becomes of files in the plugins directory.

use std::path::Path;
use std::sync::Arc;

use dormouse_plugin::{EngineConfig, LoadState, PluginConfig, PluginError, PluginSet, Trial, inspect};

use crate::support::{House, config, granted, guest};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A component that exports `scaler` with functions of the wrong type, around a core module.
fn scaler_around(module: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component
            (core module $m {module} (func (export "f") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i "f")))
            (instance $scaler
                (export "settings" (func $f))
                (export "resources" (func $f))
                (export "set-scale" (func $f))
                (export "service" (func $f)))
            (export "dormouse:plugin/scaler@0.1.0" (instance $scaler)))"#
    ))
}

#[tokio::test]
async fn every_file_has_a_status_and_bad_ones_stop_nobody() {
    let mut house = House::new();
    house.file("b-good.wasm", guest("bench"));
    house.file("a-good.wasm", guest("bench"));
    house.file("broken.wasm", b"\0asm");
    house.file("empty.wasm", b"");
    house.file("text.wasm", "(component)");
    house.file("bad name.wasm", guest("bench"));
    house.file("readme.md", "not a plugin");
    house.file(".hidden.wasm", "not a plugin");
    house
        .configure("a-good", granted("{}"))
        .configure("b-good", granted("{}"));
    house.configure("misspelt", PluginConfig::default());

    let set = house.load().await;
    let names: Vec<_> = set
        .plugins()
        .iter()
        .map(|plugin| plugin.name().to_owned())
        .collect();
    assert_eq!(names, ["a-good", "b-good"]);
    for plugin in set.plugins() {
        assert_eq!(plugin.generation(), 1);
        assert_eq!(plugin.resources().await.unwrap().len(), 10);
    }
    let statuses: Vec<_> = set
        .statuses()
        .into_iter()
        .map(|status| match status.state {
            LoadState::Ready { .. } => (status.name, "ready"),
            LoadState::Loading => (status.name, "loading"),
            LoadState::Failed { error } => (status.name, error.code()),
        })
        .collect();
    let expected = [
        ("a-good", "ready"),
        ("b-good", "ready"),
        ("bad name", "invalid_name"),
        ("broken", "malformed"),
        ("empty", "not_a_component"),
        ("misspelt", "no_file"),
        ("text", "not_a_component"),
    ];
    assert_eq!(statuses, expected.map(|(name, state)| (name.to_owned(), state)));
    assert_eq!(house.metric(r#"dormouse_plugin_ready{plugin="a-good"}"#), 1.0);
    assert_eq!(house.metric(r#"dormouse_plugin_ready{plugin="empty"}"#), 0.0);
    assert_eq!(
        house.metric(r#"dormouse_plugin_loads_total{plugin="misspelt",result="no_file"}"#),
        1.0
    );
}

#[tokio::test]
async fn a_missing_directory_is_a_status_and_no_crash() {
    let house = House::new();
    let nowhere = Path::new("/nowhere/plugins");
    let set = PluginSet::load(&house.engine, nowhere, &house.configs, house.services.clone()).await;
    let error = set.directory_error().unwrap();
    assert_eq!(error.code(), "unreadable");
    assert!(error.to_string().contains("/nowhere/plugins"), "{error}");
    assert!(set.plugins().is_empty() && set.statuses().is_empty());
}

#[tokio::test]
async fn several_places_are_one_set_and_the_first_of_a_name_is_used() {
    let mut house = House::new();
    let (first, second) = (
        house.directory.path().join("first"),
        house.directory.path().join("second"),
    );
    for directory in [&first, &second] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::write(first.join("both.wasm"), guest("bench")).unwrap();
    std::fs::write(second.join("both.wasm"), b"not used").unwrap();
    std::fs::write(second.join("other.wasm"), guest("bench")).unwrap();
    std::fs::write(second.join("unnamed.wasm"), b"not used").unwrap();
    house
        .configure("both", granted("{}"))
        .configure("other", granted("{}"));

    let places = [first.clone(), second.join("other.wasm"), second.join("both.wasm")];
    let set = PluginSet::load_from(&house.engine, &places, &house.configs, house.services.clone()).await;
    let names: Vec<_> = set
        .plugins()
        .iter()
        .map(|plugin| plugin.name().to_owned())
        .collect();
    assert_eq!(names, ["both", "other"], "{:?}", set.statuses());
    assert!(set.directory_error().is_none());
    let taken: Vec<_> = set
        .statuses()
        .into_iter()
        .filter_map(|status| match status.state {
            LoadState::Failed { error } => Some((status.path, error.to_string())),
            LoadState::Ready { .. } | LoadState::Loading => None,
        })
        .collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].0, second.join("both.wasm"));
    assert!(
        taken[0]
            .1
            .contains(&first.join("both.wasm").display().to_string()),
        "{}",
        taken[0].1
    );
    assert_eq!(house.metric(r#"dormouse_plugin_ready{plugin="both"}"#), 1.0);
}

#[tokio::test]
async fn one_place_that_cannot_be_read_takes_nothing_from_the_others() {
    let mut house = House::new();
    house.file("good.wasm", guest("bench"));
    house.configure("good", granted("{}"));
    let places = [
        Path::new("/nowhere/plugins").to_owned(),
        house.directory.path().to_owned(),
    ];
    let set = PluginSet::load_from(&house.engine, &places, &house.configs, house.services.clone()).await;
    assert!(set.get("good").is_some());
    assert_eq!(set.directory_error().unwrap().code(), "unreadable");
}

#[tokio::test]
async fn a_mounted_config_map_works() {
    let mut house = House::new();
    let root = house.directory.path();
    let data = root.join("..2026_11_22_10_00_00.1234");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("scaler.wasm"), guest("bench")).unwrap();
    std::os::unix::fs::symlink(data.file_name().unwrap(), root.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/scaler.wasm", root.join("scaler.wasm")).unwrap();
    std::os::unix::fs::symlink("..data/gone.wasm", root.join("gone.wasm")).unwrap();
    std::fs::create_dir(root.join("folder.wasm")).unwrap();
    house.configure("scaler", granted("{}"));

    let set = house.load().await;
    let names: Vec<_> = set.statuses().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["folder", "gone", "scaler"]);
    assert!(matches!(
        &set.statuses()[0].state,
        LoadState::Failed {
            error: PluginError::NotAFile {
                what: "a directory",
                ..
            }
        }
    ));
    assert!(matches!(
        &set.statuses()[1].state,
        LoadState::Failed { error: PluginError::Unreadable { path, reason } }
            if path.ends_with("gone.wasm") && reason.contains("leads to nothing")
    ));
    assert_eq!(set.get("scaler").unwrap().resources().await.unwrap().len(), 10);
}

#[tokio::test]
async fn author_04_whatever_is_called_like_a_plugin_delays_nobody() {
    let mut house = House::new();
    let root = house.directory.path();
    house.file("good.wasm", guest("bench"));
    let fifo = std::process::Command::new("mkfifo")
        .arg(root.join("fifo.wasm"))
        .status()
        .unwrap();
    assert!(fifo.success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket.wasm")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", root.join("device.wasm")).unwrap();
    std::os::unix::fs::symlink("loop.wasm", root.join("loop.wasm")).unwrap();
    std::fs::create_dir(root.join("folder.wasm")).unwrap();
    house.configure("good", granted("{}"));

    let set = house.load().await;
    assert!(set.get("good").is_some());
    let told: Vec<_> = set
        .statuses()
        .into_iter()
        .filter_map(|status| match status.state {
            LoadState::Failed { error } => Some((status.name, error.to_string())),
            _ => None,
        })
        .collect();
    for (index, (name, words)) in [
        ("device", "a device"),
        ("fifo", "a named pipe"),
        ("folder", "a directory"),
        ("loop", "in a circle"),
        ("socket", "a socket"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(
            told[index].0 == name && told[index].1.contains(words),
            "{:?}",
            told[index]
        );
        let seen = inspect(&house.directory.path().join(format!("{name}.wasm"))).await;
        assert_eq!(
            seen.unwrap_err().to_string(),
            told[index].1,
            "inspect says the same"
        );
    }
    assert_eq!(
        house.metric(r#"dormouse_plugin_loads_total{plugin="fifo",result="not_a_file"}"#),
        1.0
    );
}

#[tokio::test]
async fn author_03_components_with_several_memories_compile() {
    // Two parts, one of which hands the other a string: wasmtime's adapter between them has two memories.
    let composed = wat(r#"(component
            (component $callee
                (core module $m
                    (memory (export "memory") 1)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
                    (func (export "f") (param i32 i32)))
                (core instance $i (instantiate $m))
                (func (export "f") (param "s" string)
                    (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
            (component $caller
                (import "f" (func $f (param "s" string)))
                (core module $libc (memory (export "memory") 1))
                (core instance $libc (instantiate $libc))
                (core func $lowered (canon lower (func $f) (memory (core memory $libc "memory"))))
                (core module $m
                    (import "" "f" (func $f (param i32 i32)))
                    (func (export "run") (call $f (i32.const 0) (i32.const 1))))
                (core instance $i (instantiate $m (with "" (instance (export "f" (func $lowered))))))
                (func (export "run") (canon lift (core func $i "run"))))
            (instance $callee (instantiate $callee))
            (instance $caller (instantiate $caller (with "f" (func $callee "f"))))
            (export "run" (func $caller "run")))"#);
    assert_eq!(
        House::new().refused(composed).await.code(),
        "missing_export",
        "it compiles"
    );
}

#[tokio::test]
async fn author_05_plugins_are_there_one_by_one_and_kept_compiled() {
    let kept = tempfile::tempdir().unwrap();
    let mut house = House::with(EngineConfig {
        cache: Some(kept.path().to_owned()),
        ..EngineConfig::default()
    });
    house
        .file("a.wasm", guest("bench"))
        .file("b.wasm", guest("bench"));
    house.configure("a", granted("{}")).configure("b", granted("{}"));
    let places = [house.directory.path().to_owned()];
    let set = PluginSet::start(&house.engine, &places, &house.configs, house.services.clone());
    assert!(
        !set.is_settled() && set.may_come("a"),
        "it returns before anything is loaded"
    );
    set.settled().await;
    assert_eq!(set.plugins().len(), 2, "{:?}", set.statuses());
    let entries = || {
        let directory = std::fs::read_dir(kept.path()).unwrap().next().unwrap().unwrap();
        std::fs::read_dir(directory.path()).unwrap().count()
    };
    assert_eq!(entries(), 1, "the same bytes are compiled once");
    let again = house.load().await;
    assert_eq!(again.get("b").unwrap().resources().await.unwrap().len(), 10);
}

#[tokio::test]
async fn author_07_a_newer_function_that_is_not_used_is_no_obstacle() {
    let newer = wat(r#"(component
            (import "dormouse:plugin/config@0.1.1" (instance
                (export "get" (func (param "key" string) (result (option string))))
                (export "watch" (func))))
            (import "dormouse:plugin/clocks@0.1.1" (instance (export "zone" (func (result string)))))
            (import "wasi:http/types@0.2.10" (instance (export "fields" (type (sub resource))))))"#);
    assert_eq!(
        House::new().refused(newer).await.code(),
        "missing_export",
        "its imports are linked"
    );
}

#[tokio::test]
async fn an_interface_that_is_not_granted_is_not_linked() {
    let house = House::new();
    let PluginError::NotGranted { import, how } = house.refused(guest("bench")).await else {
        panic!()
    };
    assert_eq!(import, "dormouse:plugin/lifecycle@0.1.0");
    assert!(how.contains("plugins.refused.grants: lifecycle: ["), "{how}");

    let mut house = House::new();
    house.configure("refused", config("grants: {lifecycle: true}"));
    let PluginError::NotGranted { import, how } = house.refused(guest("evil")).await else {
        panic!()
    };
    assert_eq!(import, "dormouse:plugin/kubernetes@0.1.0");
    assert!(how.contains("plugins.refused.grants: kubernetes:"), "{how}");
}

#[tokio::test]
async fn what_is_no_plugin_is_told_apart() {
    let house = House::new();
    let error = house.refused(wat("(module)")).await;
    assert_eq!(error.code(), "not_a_component");
    assert!(error.to_string().contains("wasm32-wasip2"), "{error}");

    let whole = guest("bench");
    assert_eq!(house.refused(&whole[..whole.len() / 2]).await.code(), "malformed");

    assert_eq!(house.refused(wat("(component)")).await.code(), "missing_export");

    let import = r#"(component (import "acme:shop/till" (instance (export "open" (func)))))"#;
    assert_eq!(
        house.refused(wat(import)).await,
        PluginError::UnknownImport {
            import: "acme:shop/till".into()
        }
    );
    let import =
        r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance (export "handle" (func)))))"#;
    assert_eq!(
        house.refused(wat(import)).await.code(),
        "missing_export",
        "what WASI has beside our part of it is no obstacle"
    );
}

#[tokio::test]
async fn another_version_of_the_contract_is_told() {
    let house = House::new();
    let newer = r#"(component (import "dormouse:plugin/logging@0.2.0" (instance (export "log" (func)))))"#;
    let error = house.refused(wat(newer)).await;
    let text = error.to_string();
    assert_eq!(error.code(), "incompatible");
    assert!(
        text.contains("dormouse:plugin/logging@0.2.0") && text.contains("offers dormouse:plugin@0.1.0"),
        "{text}"
    );

    let exports = wat(r#"(component (instance $i) (export "dormouse:plugin/scaler@0.3.0" (instance $i)))"#);
    assert_eq!(house.refused(exports).await.code(), "incompatible");

    let import = r#"(component (import "dormouse:plugin/logging@0.1.0" (instance (export "log" (func))))
                       (instance $i) (export "dormouse:plugin/scaler@0.1.0" (instance $i)))"#;
    assert_eq!(
        house.refused(wat(import)).await.code(),
        "incompatible",
        "an import of another type"
    );
}

#[tokio::test]
async fn exports_of_another_type_are_found_before_the_first_call() {
    let error = House::new().refused(scaler_around("")).await;
    assert_eq!(error.code(), "incompatible");
    assert!(error.to_string().contains("dormouse:plugin/scaler"), "{error}");
}

#[tokio::test]
async fn start_code_is_limited_like_a_call() {
    let mut house = House::new();
    house.configure("refused", config("limits: {cpu: 50ms, wall: 20s}"));
    let endless = "(func $s (loop br 0)) (start $s)";
    assert_eq!(house.refused(scaler_around(endless)).await.code(), "cpu_budget");
    let trap = "(func $s unreachable) (start $s)";
    assert_eq!(house.refused(scaler_around(trap)).await.code(), "panicked");
    // More at once than a plugin may have, but not more than a slot of the pool.
    let hungry = "(memory 3000)";
    assert_eq!(
        house.refused(scaler_around(hungry)).await,
        PluginError::Memory { limit: 128 << 20 }
    );
    // More than a slot.
    let greedy = house.refused(scaler_around("(memory 60000)")).await;
    assert!(["malformed", "memory"].contains(&greedy.code()), "{greedy:?}");
}

#[tokio::test]
async fn wasm_features_that_no_guest_needs_are_off_and_those_of_go_are_on() {
    let house = House::new();
    let compiles = async |module: &str| match house.refused(scaler_around(module)).await.code() {
        "malformed" => false,
        "incompatible" => true,
        code => panic!("{code}"),
    };
    assert!(compiles("(type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0)))").await);
    assert!(
        compiles("(func (result v128) (v128.const i64x2 0 0))").await,
        "SIMD is what Rust may use"
    );
    assert!(!compiles("(type $s (struct))").await, "garbage collection");
    assert!(!compiles("(memory i64 1)").await, "64-bit memory");
    assert!(!compiles("(memory 1 1 shared)").await, "threads");
    assert!(!compiles("(tag)").await, "exceptions");
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_not_read() {
    let house = House::with(EngineConfig {
        file_limit: 1000,
        ..EngineConfig::default()
    });
    assert_eq!(
        house.refused(vec![0; 1001]).await,
        PluginError::TooLarge { limit: 1000 }
    );
    assert_eq!(house.refused(vec![0; 1000]).await.code(), "not_a_component");
}

#[tokio::test]
async fn limits_that_cannot_work_are_a_load_error() {
    let mut house = House::new();
    house.configure("refused", config("limits: {memoryBytes: 99999999999}"));
    let error = house.refused(guest("bench")).await;
    assert_eq!(error.code(), "invalid_configuration");
    assert!(error.to_string().contains("limits.memoryBytes"), "{error}");
}

#[tokio::test]
async fn a_plugin_outlives_the_set_that_loaded_it() {
    let mut house = House::new();
    house
        .file("p.wasm", guest("bench"))
        .file("q.wasm", guest("bench"));
    house.configure("p", granted("{}")).configure("q", granted("{}"));
    let set = house.load().await;
    let (p, q) = (set.get("p").unwrap(), set.get("q").unwrap());
    assert_eq!(p.digest(), q.digest());
    assert_eq!(p.digest().len(), 64);
    drop(set);
    assert_eq!(Arc::strong_count(&p), 1);
    p.resources().await.unwrap();
}

#[tokio::test]
async fn without_address_space_for_a_pool_plugins_still_run() {
    let metrics = dormouse_plugin::Metrics::default();
    // More slots than there are addresses: each has at least 4 GiB.
    let huge = EngineConfig {
        concurrent_calls: 1 << 20,
        ..EngineConfig::default()
    };
    let engine = dormouse_plugin::HostEngine::new(huge, metrics).unwrap();
    assert_eq!(engine.allocation(), dormouse_plugin::Allocation::OnDemand);
    let mut house = House::new();
    assert_eq!(house.engine.allocation(), dormouse_plugin::Allocation::Pooling);
    house.engine = engine;
    house.file("p.wasm", guest("bench"));
    house.configure("p", granted("{}"));
    assert_eq!(house.only().await.resources().await.unwrap().len(), 10);
}

#[tokio::test]
async fn inspecting_tells_what_an_operator_has_to_grant() {
    let house = House::new();
    house
        .file("evil.wasm", guest("evil"))
        .file("half.wasm", &guest("evil")[..1000]);
    let seen = inspect(&house.directory.path().join("evil.wasm")).await.unwrap();
    assert_eq!(seen.name, "evil");
    assert_eq!((seen.size, seen.digest.len()), (guest("evil").len(), 64));
    assert!(
        seen.exports.contains(&"dormouse:plugin/scaler@0.1.0".to_owned()),
        "{:?}",
        seen.exports
    );
    let needs: Vec<_> = seen.needs.iter().map(|need| need.import.as_str()).collect();
    assert_eq!(
        needs,
        [
            "dormouse:plugin/kubernetes@0.1.0",
            "dormouse:plugin/lifecycle@0.1.0"
        ]
    );
    assert!(seen.ingress_targets);
    assert!(
        seen.producers.iter().any(|producer| producer.name == "rustc"),
        "{:?}",
        seen.producers
    );
    assert!(
        seen.producers
            .iter()
            .any(|producer| producer.name == "wit-bindgen-rust"),
        "{:?}",
        seen.producers
    );
    assert!(matches!(seen.trial, Trial::Passed { .. }), "{:?}", seen.trial);

    assert_eq!(
        inspect(&house.directory.path().join("half.wasm"))
            .await
            .unwrap_err()
            .code(),
        "malformed"
    );
    assert_eq!(
        inspect(Path::new("/nowhere.wasm")).await.unwrap_err().code(),
        "unreadable"
    );

    house.file("wrong.wasm", scaler_around(""));
    let seen = inspect(&house.directory.path().join("wrong.wasm")).await.unwrap();
    assert!(
        matches!(
            seen.trial,
            Trial::Failed {
                code: "incompatible",
                ..
            }
        ),
        "{:?}",
        seen.trial
    );
}

/// As docs/faults/plugins.md tells: `DORMOUSE_GUESTS` is a directory with plugins that other toolchains made, whose `resources` fails
/// with the text `boom` when `boom-resources` is configured.
#[tokio::test]
#[ignore = "needs plugins that other toolchains made, in DORMOUSE_GUESTS"]
async fn guests_of_other_languages_load_and_their_exceptions_are_told() {
    let directory = std::path::PathBuf::from(std::env::var("DORMOUSE_GUESTS").unwrap());
    let mut house = House::with(EngineConfig {
        cache: std::env::var("DORMOUSE_GUESTS_CACHE").ok().map(Into::into),
        ..EngineConfig::default()
    });
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        house.file(&format!("{name}.wasm"), std::fs::read(&path).unwrap());
        let mut config = granted("{}");
        config.config.insert("boom-resources".into(), "yes".into());
        house.configure(&name, config);
        names.push(name);
    }
    let set = house.load().await;
    let mut told = Vec::new();
    for name in names {
        let plugin = set.get(&name).unwrap_or_else(|| panic!("{:?}", set.statuses()));
        let error = plugin.resources().await.unwrap_err().to_string();
        println!("{name}: {error}");
        // Without WASI there is no stderr that an exception could be written to.
        told.push((error.contains("boom") || name.contains("stub"), name, error));
    }
    assert!(told.iter().all(|(told, ..)| *told), "{told:?}");
}
