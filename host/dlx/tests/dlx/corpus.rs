//! Every raw input of the corpus, straight to a workload and through the DLX, observed and asleep: the same bytes get the same
//! answer, or the table in docs/http.md says why not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dormouse_dlx::EndpointsView;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// What nobody answers is taken for unanswered after this; far longer than a loaded machine takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for what the workload does not answer either.
const SILENCE: Duration = Duration::from_secs(2);
/// How long the workload goes on reading after its answer.
const LINGER: Duration = Duration::from_millis(700);

fn corpus() -> PathBuf {
    std::env::var_os("DORMOUSE_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    )
}

/// Bytes of an input: C escapes, and long ones are cut off as `...[20081 bytes]`, which tells how many there were.
fn bytes(input: &str) -> Vec<u8> {
    let cut = input
        .strip_suffix(" bytes]")
        .and_then(|text| text.rsplit_once("...["));
    match cut.and_then(|(begin, count)| Some((begin, count.parse().ok()?))) {
        // It may be cut in the middle of an escape.
        Some((begin, count)) => filled(unescaped(begin.trim_end_matches('\\')), count),
        // Or only that there were more.
        None => match input.strip_suffix('…') {
            Some(begin) => filled(unescaped(begin), 40_000),
            None => unescaped(input),
        },
    }
}

/// What was cut off a long input.
fn filled(mut begin: Vec<u8>, count: usize) -> Vec<u8> {
    if begin.ends_with(b"\r") {
        begin.push(b'\n');
    }
    let has = |part: &[u8]| begin.windows(part.len()).any(|window| window == part);
    let (end, filler): (&[u8], &[u8]) = if begin.starts_with(b"\r\n") {
        (b"GET /a HTTP/1.1\r\nHost: raw.lab\r\n\r\n", b"\r\n")
    } else if has(b"5;a=") {
        (b"\r\nhello\r\n0\r\n\r\n", b"x")
    } else if has(b"\r\nX0: 1\r\n") {
        let whole = begin.iter().rposition(|byte| *byte == b'X').unwrap();
        begin.truncate(whole);
        let mut number = begin.windows(2).filter(|window| window == b"\nX").count();
        while begin.len() + 2 < count {
            begin.extend_from_slice(format!("X{number}: 1\r\n").as_bytes());
            number += 1;
        }
        (b"\r\n", b"")
    } else if has(b" HTTP/1.1") {
        (b"\r\n\r\n", b"a")
    } else {
        (b" HTTP/1.1\r\nHost: raw.lab\r\n\r\n", b"a")
    };
    while !filler.is_empty() && begin.len() + end.len() < count {
        begin.extend_from_slice(filler);
    }
    begin.extend_from_slice(end);
    begin
}

fn unescaped(input: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = input.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((kind, tail)) = rest.split_first() else {
            out.push(b'\\');
            break;
        };
        rest = tail;
        match kind {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'"' => out.push(b'"'),
            b'\\' => out.push(b'\\'),
            b'x' if rest.len() >= 2 => {
                let (hex, tail) = rest.split_at(2);
                rest = tail;
                let hex = std::str::from_utf8(hex).unwrap();
                out.push(u8::from_str_radix(hex, 16).unwrap());
            }
            other => out.extend([b'\\', *other]),
        }
    }
    out
}

/// A workload that takes whatever looks like a request, as lenient as servers come: a head up to an empty line, one answer.
async fn lenient() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut got = Vec::new();
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let head_ended = got.windows(4).any(|four| four == b"\r\n\r\n")
                        || got.windows(2).any(|two| two == b"\n\n");
                    if head_ended {
                        break;
                    }
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => got.extend_from_slice(&buffer[..count]),
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
                // Whoever still sends gets the answer, not a reset.
                while matches!(tokio::time::timeout(LINGER, stream.read(&mut buffer)).await, Ok(Ok(n)) if n > 0)
                {
                }
            });
        }
    });
    address
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Workload,
    Dlx,
}

/// The status of the first answer and the reason that the DLX gives, if it is one of its own.
async fn ask(address: SocketAddr, input: &[u8], to: To, patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let send = async {
        let _ = writing.write_all(input).await;
        if to == To::Workload {
            // So that one which waits for more says at once that it will not answer.
            let _ = writing.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let mut got = Vec::new();
    let read = async {
        let mut buffer = vec![0; 16 << 10];
        while !got.windows(4).any(|four| four == b"\r\n\r\n") {
            match reading.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
            }
        }
    };
    tokio::select! {
        () = send => {}
        read = tokio::time::timeout(patience, read) => { let _ = read; }
    }
    let text = String::from_utf8_lossy(&got);
    let Some(status) = text.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)) else {
        return "none".to_owned();
    };
    let reason = text.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("dormouse-reason: ")
            .map(str::to_owned)
    });
    match reason {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_owned(),
    }
}

/// Rows of the table of differences in docs/http.md: input, direct, observed, asleep.
fn documented() -> BTreeMap<String, [String; 3]> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/http.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let table = text.split("## Where the answer differs").nth(1).unwrap();
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let why = cells[5];
            assert!(why.len() > 10, "a difference without a reason: {line}");
            let name = cells[1].trim_matches('`').to_owned();
            (name, [cells[2], cells[3], cells[4]].map(str::to_owned))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_the_corpus_is_answered_as_without_us_or_the_docs_say_why() {
    let file = corpus().join("http1/raw.jsonl");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: there is no corpus (DORMOUSE_CORPUS)");
        return;
    };
    let pod = lenient().await;
    let world = World::new().await;
    let (observed, sleeper) = (
        world.workload("observed", awake(&[pod])),
        world.workload("sleeper", asleep()),
    );
    let view = sleeper.view.clone();
    world.wakes.on("sleeper", move |_| {
        let epoch = view.borrow().epoch + 1;
        view.send_replace(Arc::new(EndpointsView {
            epoch,
            ..awake(&[pod])
        }));
        async { Ok(()) }
    });
    let (port, other) = (free_address().await.port(), free_address().await.port());
    world.open_ports(&[(port, &observed), (other, &sleeper)]).await;
    let on = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut seen = BTreeMap::new();
    let mut lines = 0;
    for line in text.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let (name, input) = (
            entry["name"].as_str().unwrap(),
            bytes(entry["input"].as_str().unwrap()),
        );
        lines += 1;
        // Each sleep is later than the wake before it.
        let epoch = sleeper.view.borrow().epoch + 1;
        sleeper.show(EndpointsView { epoch, ..asleep() });
        let direct = ask(pod, &input, To::Workload, PATIENCE).await;
        // What is not answered directly is not waited for as long.
        let patience = if direct == "none" { SILENCE } else { PATIENCE };
        let (observed, asleep) = tokio::join!(
            ask(on(port), &input, To::Dlx, patience),
            ask(on(other), &input, To::Dlx, patience)
        );
        let answers = [direct, observed, asleep];
        if answers[1] != answers[0] || answers[2] != answers[0] {
            seen.insert(name.to_owned(), answers);
        }
    }
    assert!(lines > 50, "{lines} lines only");
    let documented = documented();
    let mut wrong = String::new();
    // An answer that races with the end of a body may be either.
    let told = |name: &String, answers: &[String; 3]| {
        documented.get(name).is_some_and(|cells| {
            let mut pairs = cells.iter().zip(answers);
            pairs.all(|(cell, answer)| cell.split(" or ").any(|one| one == answer))
        })
    };
    for (name, answers) in &seen {
        if !told(name, answers) {
            let _ = writeln!(
                wrong,
                "| `{name}` | {} | {} | {} | ? |",
                answers[0], answers[1], answers[2]
            );
        }
    }
    let certain = documented.iter().filter(|(_, cells)| !cells[2].contains(" or "));
    for (name, _) in certain.filter(|(name, _)| !seen.contains_key(*name)) {
        let _ = writeln!(wrong, "no difference any more: {name}");
    }
    assert!(wrong.is_empty(), "docs/http.md is to say:\n{wrong}");
}
