//! Answers that are shared: by all who ask while a call is under way, and for a while after it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dormouse_model::window_name;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::request::{Answer, Request, Upstream};

/// Answers that are kept, half of them in each generation.
const MOST: usize = 50_000;
/// What nobody asked for is forgotten after this time, twice at most.
const GENERATION: Duration = Duration::from_secs(300);
/// Age up to which a failure is repeated instead of asking again, however old an answer may be.
const FAILURE: Duration = Duration::from_secs(5);
/// Servers that have places of their own. Names may be mistyped by anybody, so those beyond share their places.
const SERVERS: usize = 64;

/// How much is asked at once, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls to one source at once. A Prometheus server is a source of its own.
    pub concurrency: usize,
    /// Deadline of each call, and again of waiting for its turn.
    pub timeout: Duration,
}

/// An answer, and when it was asked for: it says nothing about what came later.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub answer: Result<Answer, String>,
    pub asked: Instant,
}

type Flight = Shared<BoxFuture<'static, Arc<Got>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Failed,
}

#[derive(Clone)]
struct Entry {
    asked: Instant,
    /// How the call ended, also when nobody waits for it any more.
    end: Arc<OnceLock<End>>,
    flight: Flight,
}

impl Entry {
    /// Whether it will do for somebody who accepts answers of this age. A call that is under way does for all.
    fn is_fresh(&self, max_age: Duration) -> bool {
        let age = match self.end.get() {
            None => return self.flight.peek().is_none(),
            Some(End::Answered) => max_age,
            Some(End::Failed) => max_age.min(FAILURE),
        };
        self.asked.elapsed() <= age
    }
}

/// Two generations: what is asked for moves to the younger one, and the older one is dropped as a whole.
struct Generations {
    young: HashMap<Request, Entry>,
    old: HashMap<Request, Entry>,
    turned: Instant,
}

impl Generations {
    fn get(&mut self, request: &Request) -> Option<Entry> {
        if let Some(entry) = self.young.get(request) {
            return Some(entry.clone());
        }
        let entry = self.old.remove(request)?;
        self.put(request.clone(), entry.clone());
        Some(entry)
    }

    fn put(&mut self, request: Request, entry: Entry) {
        if self.young.len() >= MOST / 2 {
            self.traffic_generation();
        }
        self.old.remove(&request);
        self.young.insert(request, entry);
    }

    fn traffic_generation(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.turned = Instant::now();
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// The places of each source.
type Places = HashMap<(&'static str, String), Arc<Semaphore>>;

/// Asks, and keeps the answers.
pub(crate) struct Cache {
    upstream: Arc<dyn Upstream>,
    limits: Limits,
    metrics: Metrics,
    answers: Mutex<Generations>,
    places: Mutex<Places>,
}

impl Cache {
    pub fn new(upstream: Arc<dyn Upstream>, limits: Limits, metrics: Metrics) -> Self {
        Self {
            upstream,
            limits,
            metrics,
            answers: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                turned: Instant::now(),
            }),
            places: Mutex::default(),
        }
    }

    /// An answer that was asked for no longer than `max_age` ago.
    pub async fn get(&self, request: Request, max_age: Duration, now: Timestamp) -> Arc<Got> {
        let flight = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.turned.elapsed() >= GENERATION {
                answers.traffic_generation();
            }
            match answers.get(&request).filter(|entry| entry.is_fresh(max_age)) {
                Some(entry) => entry.flight,
                None => {
                    let entry = self.start(request.clone(), now);
                    let flight = entry.flight.clone();
                    answers.put(request, entry);
                    self.metrics.cached(answers.len());
                    flight
                }
            }
        };
        flight.await
    }

    /// Asks as soon as there is a place, in a task of its own: whoever asked first may stop waiting. The deadline holds for the wait
    /// and again for the answer.
    fn start(&self, request: Request, now: Timestamp) -> Entry {
        let Limits { concurrency, timeout } = self.limits;
        let places = self.places_of(&request);
        let (upstream, metrics) = (Arc::clone(&self.upstream), self.metrics.clone());
        let asked = Instant::now();
        let end = Arc::new(OnceLock::new());
        let ended = Arc::clone(&end);
        let fetch = async move {
            let Ok(_place) = tokio::time::timeout(timeout, places.acquire()).await else {
                return Err(format!(
                    "not answered, since {concurrency} other calls to {} took longer than {}",
                    request.whom(),
                    window_name(timeout)
                ));
            };
            let begun = Instant::now();
            let answer = tokio::time::timeout(timeout, upstream.fetch(&request, now)).await;
            metrics.took(request.source(), begun.elapsed());
            answer.unwrap_or_else(|_| Err(format!("no answer within {}", window_name(timeout))))
        };
        let task = tokio::spawn(async move {
            let answer = fetch.await;
            let _ = ended.set(if answer.is_ok() {
                End::Answered
            } else {
                End::Failed
            });
            answer
        });
        let flight = async move {
            let answer = task.await;
            let answer = answer.unwrap_or_else(|error| Err(format!("the reading did not end: {error}")));
            Arc::new(Got { answer, asked })
        };
        Entry {
            asked,
            end,
            flight: flight.boxed().shared(),
        }
    }

    fn places_of(&self, request: &Request) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lane = (request.source(), request.server().to_owned());
        if places.len() >= SERVERS && !places.contains_key(&lane) {
            lane.1.clear();
        }
        let new = || Arc::new(Semaphore::new(self.limits.concurrency.max(1)));
        Arc::clone(places.entry(lane).or_insert_with(new))
    }
}
