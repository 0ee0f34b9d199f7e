//! What a proxy owes to those before and behind it.

use std::net::SocketAddr;
use std::time::Duration;

use dormouse_dlx::{DlxConfig, ForwardedHeaders, Forwarding, HostPath, PathMatch, Routes, Syntax};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// Answers with the head that arrived, a field a line.
async fn mirror() -> Pod {
    Pod::start(|request| async move {
        let mut lines = vec![format!("{} {}", request.method(), request.uri())];
        for (name, value) in request.headers() {
            lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        Response::new(text(lines.join("\n")))
    })
    .await
}

/// Everything that comes back until the connection is closed.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut all)).await;
    assert!(
        read.is_ok(),
        "the connection is closed: {}",
        String::from_utf8_lossy(&all)
    );
    String::from_utf8_lossy(&all).into_owned()
}

fn refused(answer: &str, status: &str, reason: &str) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status}"))
        && answer.contains(&format!("dormouse-reason: {reason}"))
}

#[tokio::test]
async fn f11_a_body_that_is_malformed_is_the_clients_fault() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        use http_body_util::BodyExt;
        let _ = request.into_body().collect().await;
        Response::new(text("read"))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3;\r\nabcX\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc",
        "-1\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{body}"
        );
        let answer = raw(world.main, request.as_bytes()).await;
        assert!(refused(&answer, "400", "malformed"), "{body:?}: {answer}");
    }
    assert_eq!(world.metric("dlx_rescues_total{reason=\"bad-answer\"}"), 0);
    assert_eq!(world.metric("dlx_rescues_total{reason=\"malformed\"}"), 6);
}

#[tokio::test]
async fn f11_a_client_that_breaks_off_says_nothing_about_the_workload() {
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        use http_body_util::BodyExt;
        let _ = request.into_body().collect().await;
        Response::new(text("read"))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    for reset in [true, false] {
        for framing in ["content-length: 100", "transfer-encoding: chunked"] {
            let mut client = TcpStream::connect(world.main).await.unwrap();
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n3\r\nabc\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            eventually("it is forwarded", || async { world.demand_of("app").1 == 1 }).await;
            if reset {
                socket2::SockRef::from(&client)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            drop(client);
            eventually("it has ended", || async { world.demand_of("app") == (0, 0, 0) }).await;
        }
    }
    assert_eq!(world.metric("dlx_rescues_total{reason=\"bad-answer\"}"), 0);
}

#[tokio::test]
async fn f11_an_http2_client_that_takes_its_upload_back_says_nothing_about_the_workload() {
    use http_body_util::{BodyExt, StreamBody};
    let world = World::new().await;
    let pod = Pod::start(|request| async move {
        let _ = request.into_body().collect().await;
        Response::new(text("read"))
    })
    .await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let (mut sender, _connection) = h2_client(world.main).await;
    let (frames, stream) =
        futures::channel::mpsc::unbounded::<Result<hyper::body::Frame<bytes::Bytes>, hyper::Error>>();
    let body = BodyExt::boxed(StreamBody::new(stream));
    frames
        .unbounded_send(Ok(hyper::body::Frame::data(bytes::Bytes::from_static(b"part"))))
        .unwrap();
    let request = http::Request::post("http://a/").body(body).unwrap();
    let sent = tokio::spawn(sender.send_request(request));
    eventually("it is forwarded", || async { world.demand_of("app").1 == 1 }).await;
    sent.abort();
    drop(frames);
    drop(sender);
    eventually("it has ended", || async { world.demand_of("app") == (0, 0, 0) }).await;
    assert_eq!(world.metric("dlx_rescues_total{reason=\"bad-answer\"}"), 0);
}

#[tokio::test]
async fn f12_no_list_carries_h2c_to_a_workload() {
    let (world, pod) = (World::new().await, mirror().await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    for upgrade in [
        ",h2c",
        "websocket, h2c",
        "H2C",
        "h2c,websocket",
        "h2c\r\nupgrade: websocket",
        "\th2c ,",
    ] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nupgrade: {upgrade}\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nconnection: close, upgrade, http2-settings\r\n\r\n"
        );
        let answer = raw(world.main, request.as_bytes()).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{upgrade:?}: {answer}");
        assert!(
            !answer.contains("h2c") && !answer.contains("http2-settings"),
            "{upgrade:?}: {answer}"
        );
        assert_eq!(
            answer.contains("websocket"),
            upgrade.contains("websocket"),
            "{upgrade:?}: {answer}"
        );
    }
    let unasked = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: close\r\n\r\n";
    let answer = raw(world.main, unasked.as_bytes()).await;
    assert!(
        !answer.contains("websocket"),
        "Connection does not name it: {answer}"
    );
}

#[tokio::test]
async fn f12_a_workload_that_switches_to_something_else_is_refused() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let workload = world.workload("app", awake(&[listener.local_addr().unwrap()]));
    world.route(&workload);
    let _serving = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n";
            let _ = stream.write_all(switch).await;
            let _ = stream.read(&mut buffer).await;
        }
    }));
    let asked = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut client = TcpStream::connect(world.main).await.unwrap();
    client.write_all(asked.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 502");
}

#[tokio::test]
async fn f13_a_client_cannot_have_removed_what_the_hop_before_has_set() {
    let (world, pod) = (World::new().await, mirror().await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close, X-Real-IP, X-Auth-User, X-Request-Id\r\nx-real-ip: 10.0.0.7\r\nx-auth-user: trusted\r\nx-request-id: r1\r\n\r\n";
    let answer = raw(world.main, request.as_bytes()).await;
    for kept in ["x-real-ip: 10.0.0.7", "x-auth-user: trusted", "x-request-id: r1"] {
        assert!(answer.contains(kept), "{kept}: {answer}");
    }
    let mirrored = answer.split("\r\n\r\n").nth(1).unwrap();
    assert!(!mirrored.contains("connection:"), "{answer}");
}

#[tokio::test]
async fn f14_wrong_hosts_are_400_and_wake_nobody() {
    let world = World::new().await;
    let workload = world.workload("app", asleep());
    world.route(&workload);
    for wrong in [
        "GET http://user:pw@a/ HTTP/1.1\r\nhost: a",
        "GET / HTTP/1.1\r\nhost: user@a",
        "GET / HTTP/1.1\r\nhost: a b",
        "GET / HTTP/1.1\r\nhost: a/../x",
        "GET / HTTP/1.1\r\nhost: a:99999999",
        "GET a HTTP/1.1\r\nhost: a",
        "GET a:80 HTTP/1.1\r\nhost: a",
        "GET / HTTP/1.1\r\nx: y",
        "GET http://a/ HTTP/1.1\r\nx: y",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a",
    ] {
        let answer = raw(
            world.main,
            format!("{wrong}\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(refused(&answer, "400", "malformed"), "{wrong}: {answer}");
    }
    assert_eq!(world.wakes.calls("app"), 0);
}

#[tokio::test]
async fn f19_what_an_ingress_says_is_the_same_asleep_and_awake() {
    let (world, pod) = (World::new().await, mirror().await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-for: 203.0.113.9\r\nforwarded: for=203.0.113.9\r\n\r\n";
    let answer = raw(world.main, request.as_bytes()).await;
    assert!(
        answer.contains("x-forwarded-for: 203.0.113.9\n"),
        "nothing is appended: {answer}"
    );
    assert!(
        !answer.contains("x-forwarded-proto") && !answer.contains("x-forwarded-host"),
        "{answer}"
    );
    assert!(answer.contains("via: 1.1 dormouse"), "{answer}");
}

#[tokio::test]
async fn f19_who_is_not_trusted_is_told_of_by_policy() {
    for (headers, expected) in [
        (
            ForwardedHeaders::Append,
            "x-forwarded-for: 203.0.113.9, 127.0.0.1",
        ),
        (
            ForwardedHeaders::Preserve,
            "x-forwarded-for: 203.0.113.9, 127.0.0.1",
        ),
        (ForwardedHeaders::Replace, "x-forwarded-for: 127.0.0.1"),
        (ForwardedHeaders::Off, "x-forwarded-for: 203.0.113.9"),
    ] {
        let world = World::with(DlxConfig {
            forwarding: Forwarding {
                headers,
                trusted: "192.0.2.0/24".parse().unwrap(),
                via: false,
            },
            ..config()
        })
        .await;
        let pod = mirror().await;
        let workload = world.workload("app", awake(&[pod.address]));
        world.route(&workload);
        let request =
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-for: 203.0.113.9\r\n\r\n";
        let answer = raw(world.main, request.as_bytes()).await;
        let line = answer
            .lines()
            .find(|line| line.starts_with("x-forwarded-for"))
            .unwrap();
        assert_eq!(line, expected, "{headers:?}");
        assert!(!answer.contains("via:"), "{answer}");
    }
}

#[tokio::test]
async fn trace_is_refused_and_max_forwards_ends_here() {
    let (world, pod) = (World::new().await, mirror().await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let ask =
        |line: &str| format!("{line} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: secret\r\n\r\n");
    for trace in ["TRACE", "TRACE /x HTTP/1.1\r\nmax-forwards: 0\r\nx: "] {
        let request = if trace == "TRACE" {
            ask(trace)
        } else {
            "TRACE / HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\ncookie: secret\r\nconnection: close\r\n\r\n"
                .to_owned()
        };
        let answer = raw(world.main, request.as_bytes()).await;
        assert!(refused(&answer, "405", "method-refused"), "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
    let options = |count: &str| {
        format!("OPTIONS / HTTP/1.1\r\nhost: a\r\nmax-forwards: {count}\r\nconnection: close\r\n\r\n")
    };
    let here = raw(world.main, options("0").as_bytes()).await;
    assert!(
        here.starts_with("HTTP/1.1 200") && here.contains("allow: GET"),
        "{here}"
    );
    let there = raw(world.main, options("3").as_bytes()).await;
    assert!(there.contains("max-forwards: 2"), "{there}");
}

#[tokio::test]
async fn hop_a_workload_that_copies_fields_into_its_own_calls_is_no_loop() {
    let world = World::new().await;
    let main = world.main;
    // A calls B, and B calls A, each with all the fields that it got; the inner call of A ends it.
    let call = move |path: &'static str, headers: http::HeaderMap| async move {
        let mut request = http::Request::get(path).body(nothing()).unwrap();
        *request.headers_mut() = headers;
        h1(main, request).await
    };
    let a = Pod::start(move |request| async move {
        if request.uri().path() == "/a/again" {
            return Response::new(text("the end"));
        }
        let reply = call("/b", request.headers().clone()).await;
        Response::builder()
            .status(reply.status)
            .body(text(reply.body))
            .unwrap()
    })
    .await;
    let b = Pod::start(move |request| async move {
        let reply = call("/a/again", request.headers().clone()).await;
        Response::builder()
            .status(reply.status)
            .body(text(reply.body))
            .unwrap()
    })
    .await;
    let (first, second) = (
        world.workload("a", awake(&[a.address])),
        world.workload("b", awake(&[b.address])),
    );
    let mut routes = Routes::default();
    for (path, workload) in [("/a", &first), ("/b", &second)] {
        let at = HostPath {
            host: String::new(),
            path: path.into(),
            kind: PathMatch::Prefix,
        };
        routes.add_host(at, workload.target.clone(), None);
    }
    world.routes.publish(routes);
    let reply = get(world.main, "/a").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "the end"));
}

#[tokio::test]
async fn hop_marks_of_a_client_do_not_make_a_loop() {
    let (world, pod) = (World::new().await, mirror().await);
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let marks = "dormouse-hop: me/ns/app\r\n".repeat(20);
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{marks}\r\n");
    let answer = raw(world.main, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("ns/app"), "{answer}");
}

#[tokio::test]
async fn field_17_a_regular_expression_wakes_its_own_workload() {
    let world = World::new().await;
    let (api, root, odd) = (
        world.workload("api", asleep()),
        world.workload("root", asleep()),
        world.workload("odd", asleep()),
    );
    let mut routes = Routes::default();
    for (path, kind, workload) in [
        ("/", PathMatch::Prefix, &root),
        ("/api/v[0-9]+", PathMatch::Pattern(Syntax::StartAnyCase), &api),
        ("/odd/(a|b)", PathMatch::Unclear, &odd),
    ] {
        let at = HostPath {
            host: String::new(),
            path: path.into(),
            kind,
        };
        routes.add_host(at, workload.target.clone(), None);
    }
    world.routes.publish(routes);
    let pod = mirror().await;
    let held = tokio::spawn(get(world.main, "//x/../api/%7612?q"));
    world.until_held("api", 1).await;
    api.awake(&[pod.address]);
    let reply = held.await.unwrap();
    assert!(
        reply.body.starts_with("GET //x/../api/%7612?q"),
        "as it came: {}",
        reply.body
    );
    let reply = get(world.main, "/odd/a").await;
    assert_eq!((reply.status, reply.reason()), (404, "unclear-path"));
    assert_eq!(world.wakes.calls("root") + world.wakes.calls("odd"), 0);
}
