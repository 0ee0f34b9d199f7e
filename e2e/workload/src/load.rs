//! The client: a GET, or a dialogue of lines, on a new connection every so often, for as long as it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::State;
use axum::routing::any;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::serve::span;

/// Requests that are open at once, at most.
const OPEN: usize = 2_000;
/// No answer takes longer, or it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Failures that are told in words.
const TOLD: usize = 10;
/// Bytes of an answer that are read.
const LONGEST: u64 = 1 << 20;

/// What `load` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Where to, such as http://10.96.0.12:80/, or lines://10.96.0.12:2525
    #[arg(long)]
    url: String,
    /// Time between two new connections
    #[arg(long, default_value = "5ms", value_parser = span)]
    every: Duration,
    /// How long to go on [default: until told to end]
    #[arg(long = "for", value_parser = span)]
    lasting: Option<Duration>,
    /// Address of `/pause`, `/resume` and `/end`; with it, nothing is sent before `/resume`
    #[arg(long)]
    control: Option<SocketAddr>,
}

#[derive(Default)]
struct Counts {
    sent: u64,
    failed: u64,
    failures: Vec<String>,
    /// Milliseconds of each answer.
    took: Vec<f64>,
}

impl Counts {
    fn summary(&mut self) -> Value {
        self.took.sort_by(f64::total_cmp);
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index into a list that fits in memory"
            )]
            let index = (self.took.len().saturating_sub(1) as f64 * part) as usize;
            let millis = self.took.get(index).copied().unwrap_or_default();
            (millis * 10.0).round() / 10.0
        };
        json!({
            "sent": self.sent,
            "ok": self.sent - self.failed,
            "failed": self.failed,
            "failures": self.failures,
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "max_ms": at(1.0),
        })
    }
}

struct Flow {
    on: AtomicBool,
    ended: AtomicBool,
    finished: AtomicBool,
    notify: Notify,
    counts: Mutex<Counts>,
}

/// Sends until told to end, or until the time is over. Whether every request was answered.
pub async fn run(args: Args) -> Result<bool> {
    let target = Target::parse(&args.url)?;
    let flow = Arc::new(Flow {
        on: AtomicBool::new(args.control.is_none()),
        ended: AtomicBool::new(false),
        finished: AtomicBool::new(false),
        notify: Notify::new(),
        counts: Mutex::default(),
    });
    if let Some(address) = args.control {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("{address} cannot be opened"))?;
        let router = Router::new()
            .route("/pause", any(|flow| set(flow, false)))
            .route("/resume", any(|flow| set(flow, true)))
            .route("/end", any(end))
            .with_state(Arc::clone(&flow));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    send(&target, &args, &flow).await;
    let summary = {
        let mut counts = flow.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.summary()
    };
    println!("{summary}");
    flow.finished.store(true, Ordering::Release);
    flow.notify.notify_waiters();
    if args.control.is_some() {
        // Whoever said `/end` still has to get the summary, and may ask again.
        tokio::time::sleep(PATIENCE).await;
    }
    Ok(summary["failed"] == 0)
}

async fn set(State(flow): State<Arc<Flow>>, on: bool) -> &'static str {
    flow.on.store(on, Ordering::Release);
    "ok\n"
}

/// Ends the sending, waits for what is open, and answers with the summary.
async fn end(State(flow): State<Arc<Flow>>) -> String {
    flow.ended.store(true, Ordering::Release);
    loop {
        let news = flow.notify.notified();
        if flow.finished.load(Ordering::Acquire) {
            break;
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), news).await;
    }
    let mut counts = flow.counts.lock().unwrap_or_else(PoisonError::into_inner);
    format!("{}\n", counts.summary())
}

async fn send(target: &Arc<Target>, args: &Args, flow: &Flow) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(args.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut open = JoinSet::new();
    let over = || args.lasting.is_some_and(|span| begun.elapsed() >= span);
    let note = |outcome: Result<Duration, String>| {
        let mut counts = flow.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.sent += 1;
        match outcome {
            Ok(took) => counts.took.push(took.as_secs_f64() * 1000.0),
            Err(why) => {
                counts.failed += 1;
                if counts.failures.len() < TOLD {
                    counts.failures.push(why);
                }
            }
        }
    };
    while !flow.ended.load(Ordering::Acquire) && !over() {
        ticks.tick().await;
        if flow.on.load(Ordering::Acquire) && open.len() < OPEN {
            let target = Arc::clone(target);
            open.spawn(async move { exchange(&target).await });
        }
        while let Some(Ok(outcome)) = open.try_join_next() {
            note(outcome);
        }
    }
    while let Some(Ok(outcome)) = open.join_next().await {
        note(outcome);
    }
}

struct Target {
    authority: String,
    /// What is asked by HTTP. None: a dialogue of lines.
    request: Option<Vec<u8>>,
}

impl Target {
    fn parse(url: &str) -> Result<Arc<Self>> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let host = uri.host().with_context(|| format!("{url:?} names no host"))?;
        let (port, http) = match uri.scheme_str() {
            Some("http") => (80, true),
            Some("lines") => (2525, false),
            _ => bail!("{url:?} does not begin with http:// or lines://"),
        };
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(port));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = http.then(|| {
            format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").into_bytes()
        });
        Ok(Arc::new(Self { authority, request }))
    }
}

async fn exchange(target: &Target) -> Result<Duration, String> {
    let begun = Instant::now();
    match tokio::time::timeout(PATIENCE, talk(target)).await {
        Ok(Ok(())) => Ok(begun.elapsed()),
        Ok(Err(why)) => Err(format!(
            "{}: {why} after {} ms",
            jiff::Timestamp::now(),
            begun.elapsed().as_millis()
        )),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn talk(target: &Target) -> Result<(), String> {
    let Some(request) = &target.request else {
        return crate::lines::dialogue(&target.authority).await;
    };
    let mut stream = TcpStream::connect(&target.authority)
        .await
        .map_err(|error| format!("connecting: {error}"))?;
    stream
        .write_all(request)
        .await
        .map_err(|error| format!("sending: {error}"))?;
    let mut answer = Vec::new();
    (&mut stream)
        .take(LONGEST)
        .read_to_end(&mut answer)
        .await
        .map_err(|error| format!("reading: {error}"))?;
    let mut lines: VecDeque<&[u8]> = answer.split(|byte| *byte == b'\n').collect();
    let first = String::from_utf8_lossy(lines.pop_front().unwrap_or_default())
        .trim()
        .to_owned();
    if first.starts_with("HTTP/1.1 200") {
        Ok(())
    } else if first.is_empty() {
        Err("closed without an answer".to_owned())
    } else {
        let last = lines
            .pop_back()
            .filter(|line| !line.is_empty())
            .or_else(|| lines.pop_back());
        Err(format!(
            "{first}: {}",
            String::from_utf8_lossy(last.unwrap_or_default()).trim()
        ))
    }
}
