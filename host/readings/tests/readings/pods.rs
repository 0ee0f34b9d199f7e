//! Pods that serve metrics.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dormouse_readings::config::PodLimits;
use dormouse_readings::exposition::Wanted;
use dormouse_readings::{Measured, Pod, Pods, Scrape, ScrapeError, Scraped};
use rstest::rstest;

use crate::server::{Reply, Server};

fn page(text: &str) -> Reply {
    Reply::Whole(
        "200 OK",
        "content-type: text/plain; version=0.0.4\r\n",
        text.to_owned(),
    )
}

fn pods() -> Pods {
    Pods::new(PodLimits {
        timeout: Duration::from_millis(500),
        max_pods: 20,
        max_response_bytes: 64 << 10,
    })
}

fn scrape(port: u16) -> Scrape {
    Scrape {
        port,
        path: "/metrics?x=y".into(),
        wanted: Wanted {
            metric: "sessions".into(),
            labels: vec![("kind".into(), "ws".into())],
        },
    }
}

async fn sum(pods_to_ask: &[Pod], scrape: &Scrape, not_before: i64) -> Result<Measured, ScrapeError> {
    let scraped = pods().scrape(pods_to_ask, scrape, not_before).await?;
    Scraped::sum(&scraped)
}

/// All on one server: they have one address in this test.
fn those(count: usize) -> Vec<Pod> {
    let address: IpAddr = [127, 0, 0, 1].into();
    (0..count)
        .map(|index| Pod {
            name: format!("web-{index}"),
            address,
        })
        .collect()
}

#[tokio::test]
async fn every_pod_counts() {
    let text = "# TYPE sessions gauge\nsessions{kind=\"ws\",a=\"1\"} 2\nsessions{kind=\"ws\",a=\"2\"} 0.5\nsessions{kind=\"x\"} 9\n";
    let server = Server::start(page(text)).await;
    let answer = sum(&those(20), &scrape(server.address.port()), 0).await;
    assert!(
        matches!(&answer, Ok(Measured::Value(value)) if value.to_string() == "50"),
        "{answer:?}"
    );
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 20);
    assert!(
        requests[0].starts_with("GET /metrics?x=y HTTP/1.1"),
        "{}",
        requests[0]
    );
    let head = requests[0].to_lowercase();
    assert!(
        !head.contains("authorization") && head.contains("accept: text/plain"),
        "{head}"
    );
}

#[rstest]
#[case::no_such_page(
    Reply::Whole("404 Not Found", "", String::new()),
    "answered 404 Not Found to /metrics?x=y"
)]
#[case::redirect(
    Reply::Whole("301 Moved", "location: http://elsewhere/\r\n", String::new()),
    "redirects are not followed"
)]
#[case::broken_program(Reply::Whole("500 Internal Server Error", "", "panic".into()), "500 Internal Server Error")]
#[case::web_page(
    page("<html><body>Welcome</body></html>"),
    "line 1 is not in the Prometheus text format"
)]
#[case::repeated(
    page("sessions{kind=\"ws\"} 1\nsessions{kind=\"ws\"} 2\n"),
    "line 2 repeats a series"
)]
#[case::slow(Reply::Silence, "did not answer within 500ms")]
#[case::endless(Reply::Endless, "larger than 65536 bytes")]
#[case::broken_off(Reply::Broken, "cannot be reached")]
#[tokio::test]
async fn one_that_fails_is_an_error_and_never_zero(#[case] reply: Reply, #[case] said: &str) {
    let server = Server::start(reply).await;
    let begun = Instant::now();
    let error = sum(&those(2), &scrape(server.address.port()), 0)
        .await
        .unwrap_err()
        .to_string();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(error.contains(said) && error.contains("pod web-"), "{error}");
}

#[tokio::test]
async fn a_pod_that_does_not_know_the_metric_is_no_data() {
    for (text, said) in [
        ("up 1\n", "no metric sessions"),
        ("sessions{kind=\"other\"} 1\n", "with these labels"),
        ("sessions{kind=\"ws\"} NaN\n", "NaN"),
        ("sessions{kind=\"ws\"} 1 999\n", "older"),
        ("", "no metric"),
    ] {
        let server = Server::start(page(text)).await;
        let answer = sum(&those(1), &scrape(server.address.port()), 1000).await;
        assert!(
            matches!(&answer, Ok(Measured::NoData(why)) if why.contains(said)),
            "{text}: {answer:?}"
        );
    }
    let nobody = sum(&[], &scrape(80), 0).await;
    assert!(matches!(nobody, Ok(Measured::NoData(_))));
}

#[tokio::test]
async fn what_is_not_asked_at_all() {
    let too_many = sum(&those(21), &scrape(80), 0).await;
    assert!(matches!(
        too_many,
        Err(ScrapeError::TooManyPods { pods: 21, limit: 20 })
    ));
    // A path that would name another host.
    let server = Server::start(page("sessions{kind=\"ws\"} 0\n")).await;
    for path in ["@127.0.0.2/metrics", "metrics", ".example/metrics", "0/metrics"] {
        let elsewhere = Scrape {
            path: path.into(),
            ..scrape(server.address.port())
        };
        let answer = sum(&those(1), &elsewhere, 0).await;
        assert!(matches!(answer, Err(ScrapeError::Path(_))), "{path}: {answer:?}");
    }
    assert!(server.requests.lock().unwrap().is_empty());
    drop(server);
}

#[tokio::test]
async fn nobody_at_the_port() {
    let server = Server::start(Reply::Silence).await;
    let port = server.address.port();
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = sum(&those(1), &scrape(port), 0).await.unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
}
