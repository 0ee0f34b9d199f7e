//! A configuration that is wrong is told at start, with the key, the value and what is allowed, all of it at once.

use std::path::Path;

use rstest::rstest;

use super::support::dormouse;

/// What `dormouse config check` says, and whether it is content.
fn checked(file: &str, flags: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dormouse.yaml");
    std::fs::write(&path, file).unwrap();
    of_file(&path, flags)
}

fn of_file(path: &Path, flags: &[&str]) -> (bool, String) {
    let output = dormouse(&["config", "check", "--config"])
        .arg(path)
        .args(flags)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[rstest]
#[case::zero("autoscaler: {scaleInterval: 0s}", &["autoscaler.scaleInterval", "0s", "100ms to 24h"])]
#[case::absurdly_short("autoscaler: {scaleInterval: 1ns}", &["autoscaler.scaleInterval", "1ns"])]
#[case::absurdly_long("autoscaler: {scaleInterval: 99999h}", &["autoscaler.scaleInterval", "24h"])]
#[case::nobody_is_held("common: {resourceReadinessTimeout: 0s}", &["common.resourceReadinessTimeout"])]
#[case::absence("common: {dlxAbsence: 0s}", &["common.dlxAbsence"])]
#[case::no_place("dlx: {maxHeld: 0}", &["dlx.maxHeld", "0", "1 to 10000000"])]
#[case::one_above_all("dlx: {maxHeld: 5, maxHeldPerResource: 6}", &["dlx.maxHeldPerResource", "dlx.maxHeld"])]
#[case::port_zero("dlx: {targetPort: 0}", &["dlx.targetPort", "1 to 65535"])]
#[case::no_such_port("common: {adminAddress: ':99999'}", &["common.adminAddress", ":99999"])]
#[case::any_port("common: {adminAddress: ':0'}", &["common.adminAddress", "port 0"])]
#[case::same_port("common: {adminAddress: ':8080'}", &["common.adminAddress", "dlx.listenAddress"])]
#[case::within_ports("dlx: {listenAddress: ':20000'}", &["dlx.listenAddress", "common.dlxPorts 20000-29999"])]
#[case::wrong_order("common: {dlxPorts: 30000-20000}", &["common.dlxPorts", "30000-20000"])]
#[case::longest_below_settle("common: {lookSettle: 1m, lookLongest: 5s}", &["common.lookLongest", "common.lookSettle"])]
#[case::filter("common: {log: 'a=b=c'}", &["common.log", "a=b=c"])]
#[case::metrics("metrics: {timeout: 0s}", &["metrics.timeout", "10ms to 10m"])]
fn operator_06_values_that_cannot_work_are_refused(#[case] file: &str, #[case] said: &[&str]) {
    let (fine, text) = checked(file, &[]);
    assert!(!fine, "{text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[rstest]
#[case(&["--scale-interval=0s"], "autoscaler.scaleInterval")]
#[case(&["--max-held=0"], "dlx.maxHeld")]
#[case(&["--drain-grace=1ns"], "common.drainGrace")]
fn operator_06_flags_are_checked_as_the_file_is(#[case] flags: &[&str], #[case] said: &str) {
    let (fine, text) = checked("", flags);
    assert!(!fine && text.contains(said), "{text}");
}

#[test]
fn operator_06_environment_and_single_flags_are_checked_too() {
    let output = dormouse(&["config", "check"])
        .env("DORMOUSE_SCALE_INTERVAL", "0s")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("autoscaler.scaleInterval"),
        "{said}"
    );
    let output = dormouse(&["restore", "--wake-limit=0s"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("--wake-limit: 0s"),
        "{said}"
    );
}

#[test]
fn operator_07_files_that_are_missing_are_named_with_their_keys() {
    let (fine, text) = checked(
        "metrics: {prometheus: {a: {url: 'https://x', auth: {bearerTokenFile: /no/token}, tls: {caFile: /no/ca}}}}",
        &["--kubeconfig-path=/no/kubeconfig"],
    );
    assert!(!fine, "{text}");
    for part in [
        "metrics.prometheus.a.auth.bearerTokenFile: /no/token",
        "metrics.prometheus.a.tls.caFile: /no/ca",
        "common.kubeconfigPath: /no/kubeconfig",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    // The process itself says so as well, before it talks to anybody.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dormouse.yaml");
    std::fs::write(
        &path,
        "metrics: {prometheus: {a: {url: 'https://x', auth: {bearerTokenFile: /no/token}}}}",
    )
    .unwrap();
    let output = dormouse(&["autoscaler", "--config"]).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("bearerTokenFile: /no/token"), "{said}");
    let (fine, text) = of_file(Path::new("/no/such/file"), &[]);
    assert!(!fine && text.contains("/no/such/file"), "{text}");
}

#[rstest]
#[case("autoscaler: {scaleInterval: '5'}", &["autoscaler.scaleInterval: \"5\" lacks a unit", "5s"])]
#[case("autoscaler: {scaleInterval: 5}", &["autoscaler.scaleInterval: \"5\" lacks a unit", "5s"])]
#[case("common: {dlxService: dormouse-dlx}", &["common.dlxService", "namespace/name"])]
#[case("dlx: {maxHeld: 1Mi}", &["dlx.maxHeld", "whole number"])]
#[case("plugins: {a: {limits: {memoryBytes: 1Mi}}}", &["plugins.a.limits.memoryBytes", "whole number"])]
#[case("comon: {}", &["comon", "common"])]
#[case("common: {scalInterval: 1m}", &["common.scalInterval"])]
#[case("plugins: {workloads: {grant: {}}}", &["plugins.workloads.grant", "grants"])]
#[case("- a", &["sequence"])]
fn operator_08_texts_name_the_key_and_what_would_be_right(#[case] file: &str, #[case] said: &[&str]) {
    let (fine, text) = checked(file, &[]);
    assert!(!fine, "{text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[rstest]
#[case("")]
#[case("null")]
#[case("# nothing\n")]
#[case("common:\n#  log: info\nautoscaler: null\n")]
#[case("common: {log: ''}")]
#[case("metrics: {pods: {maxResponseBytes: 1Mi}}")]
fn operator_08_what_can_only_mean_one_thing_is_accepted(#[case] file: &str) {
    let (fine, text) = checked(file, &[]);
    assert!(fine, "{text}");
}

#[test]
fn operator_08_everything_that_is_wrong_is_told_at_once() {
    let (fine, text) = checked(
        "common: {logg: info, drainGrace: soon, dlxPorts: 5}\nautoscaler: {scaleInterval: 0s}\ndlx: {maxHeld: many}\nmetrics: {timeout: 0s, podds: {}}\n",
        &[],
    );
    assert!(!fine, "{text}");
    for key in [
        "common.logg",
        "common.drainGrace",
        "common.dlxPorts",
        "autoscaler.scaleInterval",
        "dlx.maxHeld",
        "metrics.timeout",
        "metrics.podds",
    ] {
        assert!(text.contains(key), "`{key}` is not in: {text}");
    }
}
