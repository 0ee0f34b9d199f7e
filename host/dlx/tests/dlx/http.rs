//! No stricter than what it stands in for: framing, codings, versions, names and sizes of fields.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::*;

/// A workload that answers every request head with these bytes, closes, and keeps what it was sent.
async fn recorder(answer: Vec<u8>) -> (SocketAddr, Arc<Mutex<String>>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<String>>::default());
    let kept = Arc::clone(&heard);
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            *kept.lock().unwrap() = String::from_utf8_lossy(&head).into_owned();
            let _ = stream.write_all(&answer).await;
        }
    });
    (address, heard, AbortOnDropHandle::new(serving))
}

/// What a client reads that sends `request` to a DLX before a workload that says `answer`; and what the workload heard.
async fn through(request: &str, answer: impl Into<Vec<u8>>) -> (String, String) {
    let world = World::new().await;
    let (address, heard, _serving) = recorder(answer.into()).await;
    let workload = world.workload("app", awake(&[address]));
    world.route(&workload);
    let mut client = TcpStream::connect(world.main).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    tokio::time::timeout(std::time::Duration::from_secs(60), client.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    let heard = heard.lock().unwrap().clone();
    (String::from_utf8_lossy(&read).into_owned(), heard)
}

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn f02_a_response_with_both_framings_is_whole() {
    for length in ["3", "500"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"
        );
        let (read, _) = through(ASK, answer).await;
        assert!(read.contains("hello world\r\n0\r\n\r\n"), "{read}");
        assert!(!read.to_lowercase().contains("content-length"), "{read}");
    }
}

#[tokio::test]
async fn f15_a_coding_stays_on_its_label_or_the_answer_is_refused() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
    let (read, _) = through(ASK, answer).await;
    assert!(
        read.to_lowercase()
            .contains("transfer-encoding: gzip, chunked\r\n"),
        "{read}"
    );
    assert!(read.ends_with("xyz\r\n0\r\n\r\n"), "{read}");
    let (read, _) = through("GET / HTTP/1.0\r\nHost: a\r\n\r\n", answer).await;
    assert!(read.contains(" 502 ") && read.contains("bad-answer"), "{read}");
}

#[tokio::test]
async fn f15_a_request_keeps_its_coding_too_and_chunked_comes_once() {
    let ask = |coding: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: {coding}\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
        )
    };
    let fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (read, heard) = through(&ask("gzip, chunked"), fine).await;
    assert!(read.contains(" 200 "), "{read}");
    assert!(
        heard
            .to_lowercase()
            .contains("transfer-encoding: gzip, chunked\r\n"),
        "{heard}"
    );
    let (read, heard) = through(&ask("chunked\r\nTransfer-Encoding: chunked"), fine).await;
    assert!(read.contains(" 400 ") && read.contains("malformed"), "{read}");
    assert_eq!(heard, "");
}

#[tokio::test]
async fn field_08_f18_more_than_a_hundred_fields_pass_both_ways() {
    let fields: String = (0..200).map(|number| format!("X-{number}: v\r\n")).collect();
    let ask = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
    let (read, heard) = through(&ask, answer).await;
    assert!(heard.contains("X-199: v\r\n"), "{heard}");
    assert!(read.contains("X-199: v\r\n") && read.ends_with("ok"), "{read}");
}

#[tokio::test]
async fn field_13_names_keep_their_case_both_ways() {
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nX-mIxEd: 1\r\nConnection: close\r\n\r\n";
    let (read, heard) = through(
        ask,
        "HTTP/1.1 200 OK\r\nETag: x\r\nX-ODD: 2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(
        heard.contains("X-mIxEd: 1\r\n") && heard.contains("Host: a\r\n"),
        "{heard}"
    );
    assert!(
        read.contains("ETag: x\r\n") && read.contains("X-ODD: 2\r\n"),
        "{read}"
    );
}

#[tokio::test]
async fn field_14_responses_may_be_as_odd_as_clients_allow() {
    for odd in ["X-A: one\r\n two\r\n", "X-A : one\r\n", "no colon here\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{odd}Content-Length: 2\r\n\r\nok");
        let (read, _) = through(ASK, answer).await;
        assert!(
            read.starts_with("HTTP/1.1 200 ") && read.ends_with("ok"),
            "{odd}: {read}"
        );
    }
}

#[tokio::test]
async fn f18_a_workload_cannot_speak_for_the_dlx() {
    let answer = "HTTP/1.1 503 Busy\r\nDormouse-Reason: loop\r\nContent-Length: 0\r\n\r\n";
    let (read, _) = through(ASK, answer).await;
    assert!(
        read.contains(" 503 ") && !read.to_lowercase().contains("dormouse-reason"),
        "{read}"
    );
}

#[tokio::test]
async fn a_request_raised_from_http_1_0_has_a_host() {
    let (read, heard) = through(
        "GET / HTTP/1.0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    assert!(read.ends_with("ok"), "{read}");
    assert!(heard.starts_with("GET / HTTP/1.1\r\n"), "{heard}");
    assert!(heard.to_lowercase().contains("host: app.ns.svc\r\n"), "{heard}");
}

/// A pod that speaks nothing but HTTP/2.
#[tokio::test]
async fn field_09_http2_by_prior_knowledge_reaches_a_dlx_ports_pods() {
    let pod = Pod::start(|request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        http::Response::new(text("h2"))
    })
    .await;
    let world = World::new().await;
    let workload = world.workload("app", awake(&[pod.address]));
    let port = free_address().await.port();
    world.open_ports(&[(port, &workload)]).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let request = http::Request::get("http://a/").body(nothing()).unwrap();
    assert_eq!(h2(at, request).await.body, "h2");
}

/// Sends these bytes to a DLX before a workload that says `ok`, and reads until the end.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(world.main).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    tokio::time::timeout(std::time::Duration::from_secs(60), client.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn an_answer_of_the_library_has_a_reason_and_is_counted() {
    let world = World::new().await;
    let pod = Pod::named("ok").await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(2000));
    for (request, status, reason) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            " 400 ",
            "malformed",
        ),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", " 400 ", "malformed"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            " 400 ",
            "malformed",
        ),
        (&long, " 431 ", "head-too-large"),
        (&many, " 431 ", "head-too-large"),
    ] {
        let line = format!("dlx_rescues_total{{reason=\"{reason}\"}}");
        let before = world.metric(&line);
        let read = raw(&world, request.as_bytes()).await;
        let (head, body) = read.split_once("\r\n\r\n").unwrap_or_default();
        assert!(
            head.contains(status) && head.contains(&format!("dormouse-reason: {reason}")),
            "{read}"
        );
        assert!(
            head.contains(&format!("content-length: {}", body.len())) && !body.is_empty(),
            "{read}"
        );
        assert_eq!(world.metric(&line), before + 1, "{read}");
    }
    // Behind a request that was answered: both, in order.
    let read = raw(
        &world,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    )
    .await;
    let (first, second) = read.split_once("\r\n\r\nok").unwrap_or_default();
    assert!(first.contains(" 200 OK"), "{read}");
    assert!(
        second.starts_with("HTTP/1.1 400 ") && second.contains("dormouse-reason: malformed"),
        "{read}"
    );
}

#[tokio::test]
async fn a_workloads_answer_that_looks_like_the_librarys_passes_as_it_is() {
    let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Fri, 27 Nov 2026 05:00:00 GMT\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{own}", own.len());
    let (read, _) = through(ASK, answer).await;
    assert!(read.contains(" 200 OK") && read.ends_with(own), "{read}");
    let (read, _) = through(ASK, own).await;
    assert!(
        read.starts_with("HTTP/1.1 400 ") && !read.contains("dormouse-reason"),
        "{read}"
    );
    // The connection goes on, so nothing says that it was the end.
    let world = World::new().await;
    let pod = Pod::start(move |_request| async move { http::Response::new(text(own)) }).await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    let read = raw(
        &world,
        format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{ASK}").as_bytes(),
    )
    .await;
    assert_eq!(read.matches(own).count(), 2, "{read}");
    let mut client = TcpStream::connect(world.main).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !read.ends_with(own.as_bytes()) {
        let count = client.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed");
        read.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test]
async fn field_12_an_answer_that_comes_during_an_upload_is_not_destroyed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                let _ = stream.read(&mut buffer).await;
                let answer =
                    b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
                while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
            });
        }
    });
    let _serving = AbortOnDropHandle::new(serving);
    let world = World::new().await;
    let workload = world.workload("app", awake(&[address]));
    world.route(&workload);
    for version in ["1.1", "1.0"] {
        let mut client = TcpStream::connect(world.main).await.unwrap();
        let size = 4 << 20;
        client
            .write_all(
                format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        // It reads nothing before it has sent everything, as simple clients do.
        for _ in 0..64 {
            client.write_all(&vec![b'x'; size / 64]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        let read = String::from_utf8_lossy(&read);
        assert!(read.contains(" 413 ") && read.ends_with("big"), "{read}");
    }
}

#[tokio::test]
async fn a_head_of_http_2_that_is_too_large_is_refused_with_a_reason() {
    let world = World::new().await;
    let pod = Pod::named("ok").await;
    let workload = world.workload("app", awake(&[pod.address]));
    world.route(&workload);
    for (fields, size) in [(600, 1), (2, 40_000)] {
        let mut request = http::Request::get(format!("http://{}/", world.main));
        for number in 0..fields {
            request = request.header(format!("x-{number}"), "x".repeat(size));
        }
        let reply = h2(world.main, request.body(nothing()).unwrap()).await;
        assert_eq!((reply.status, reply.reason()), (431, "head-too-large"));
    }
}
