//! The conformance suite of HTTP/2 against a DLX port.

use std::time::Duration;

use dormouse_dlx::AppProtocol;
use http_body_util::BodyExt;
use tokio::process::Command;

use crate::programs::find;
use crate::support::*;

/// Cases that fail: 3.5.2 sends a preface that is none, and the port speaks HTTP/1.1 as well.
const KNOWN: usize = 1;

#[tokio::test]
#[ignore = "needs h2spec; `cargo xtask test programs` runs it"]
async fn h2spec_finds_nothing_but_what_is_known() {
    let world = World::new().await;
    // The workload must not be the one that breaks the rules.
    let pod = Pod::start(|request| async move {
        let head = request.method() == http::Method::HEAD;
        // An answer that comes before a broken end of a request is none to complain about.
        let _ = request.into_body().collect().await;
        http::Response::new(if head { nothing() } else { text("ok") })
    })
    .await;
    let workload = world.workload_with("app", awake(&[pod.address]), |spec| {
        spec.protocol = AppProtocol::H2c
    });
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let mut command = Command::new(find("h2spec").expect("h2spec is installed"));
    command
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-o", "5", "--strict"])
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(240), command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text
        .lines()
        .rfind(|line| line.contains(" tests, "))
        .unwrap_or_default();
    println!("{summary}");
    let words: Vec<&str> = summary
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .collect();
    let counted = |what: &str| -> usize {
        let at = words.iter().position(|word| *word == what).unwrap();
        words[at - 1].parse().unwrap()
    };
    assert!(counted("tests") >= 145, "{text}");
    assert!(counted("failed") <= KNOWN, "{text}");
}
