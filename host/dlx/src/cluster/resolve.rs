//! Answers of plugins that routes depend on, asked in the background and kept as long as the question is the same.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use dormouse_plugin::types::{PathBackend, ResourceHandle, ResourceId, ServiceTarget};
use dormouse_plugin::{PluginError, PluginSet};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Questions that are asked at once: routes are in no hurry, wakes are.
const CONCURRENCY: usize = 4;
/// Pause before a question is asked again that was not answered; doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What plugins are asked. The generations make a question another one when its answer may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    Service {
        plugin: String,
        id: ResourceId,
        cookie: Option<String>,
        generation: (u64, String, i64),
    },
    Ingress {
        plugin: String,
        backend: Backend,
        generation: u64,
    },
}

/// A path of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Backend {
    pub(super) namespace: String,
    pub(super) ingress: String,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) service: String,
}

impl From<&Backend> for PathBackend {
    fn from(backend: &Backend) -> Self {
        let Backend {
            namespace,
            ingress,
            annotations,
            host,
            path,
            service,
        } = backend.clone();
        Self {
            namespace,
            ingress,
            annotations,
            host,
            path,
            service,
        }
    }
}

#[derive(Clone, Debug)]
enum Answer {
    Service(ServiceTarget),
    Targets(Vec<ResourceId>),
}

#[derive(Debug)]
enum Known {
    Asking(AbortHandle),
    Answered(Answer),
}

pub(super) struct Resolver {
    plugins: Arc<PluginSet>,
    known: HashMap<Question, Known>,
    asked: HashSet<Question>,
    asking: JoinSet<Option<(Question, Answer)>>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Resolver {
    pub(super) fn new(plugins: Arc<PluginSet>, shutdown: CancellationToken) -> Self {
        Self {
            plugins,
            known: HashMap::new(),
            asked: HashSet::new(),
            asking: JoinSet::new(),
            places: Arc::new(Semaphore::new(CONCURRENCY)),
            shutdown,
        }
    }

    /// Where the resource's requests go, if that is known.
    pub(super) fn service(&mut self, question: Question) -> Option<ServiceTarget> {
        match self.ask(question) {
            Some(Answer::Service(target)) => Some(target),
            _ => None,
        }
    }

    /// Which resources the path routes to, as far as that is known.
    pub(super) fn targets(&mut self, question: Question) -> Vec<ResourceId> {
        match self.ask(question) {
            Some(Answer::Targets(targets)) => targets,
            _ => Vec::new(),
        }
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        self.asked.insert(question.clone());
        match self.known.get(&question) {
            Some(Known::Answered(answer)) => return Some(answer.clone()),
            Some(Known::Asking(_)) => return None,
            None => {}
        }
        let (plugins, places, shutdown) = (
            Arc::clone(&self.plugins),
            Arc::clone(&self.places),
            self.shutdown.clone(),
        );
        let asked = question.clone();
        let asking = self.asking.spawn(async move {
            let answer = ask_until_answered(&plugins, &places, &asked);
            let answer = shutdown.run_until_cancelled(answer).await?;
            Some((asked, answer))
        });
        self.known.insert(question, Known::Asking(asking));
        None
    }

    /// Forgets what was not asked since the last time.
    pub(super) fn forget_unasked(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.known.retain(|question, known| {
            let keep = asked.contains(question);
            if let (false, Known::Asking(asking)) = (keep, &known) {
                asking.abort();
            }
            keep
        });
    }

    /// Waits for answers to questions that are still of interest, and takes all that are there: routes are made anew for them
    /// together.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some(answered) = self.asking.join_next().await else {
                return std::future::pending().await;
            };
            let mut news = self.note(answered);
            while let Some(answered) = self.asking.try_join_next() {
                news |= self.note(answered);
            }
            if news {
                return;
            }
        }
    }

    /// Whether the answer is to a question that is still of interest.
    fn note(&mut self, answered: Result<Option<(Question, Answer)>, JoinError>) -> bool {
        let Ok(Some((question, answer))) = answered else {
            return false;
        };
        let known = self.known.get_mut(&question);
        known.map(|known| *known = Known::Answered(answer)).is_some()
    }
}

async fn ask_until_answered(plugins: &PluginSet, places: &Semaphore, question: &Question) -> Answer {
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = {
            let _place = places.acquire().await;
            ask(plugins, question).await
        };
        match asked {
            Some(Ok(answer)) => return answer,
            Some(Err(error)) => tracing::debug!(%error, ?question, "a plugin does not say where to route"),
            None => {}
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// None: there is no such plugin.
async fn ask(plugins: &PluginSet, question: &Question) -> Option<Result<Answer, PluginError>> {
    match question {
        Question::Service {
            plugin, id, cookie, ..
        } => {
            let handle = ResourceHandle {
                id: id.clone(),
                cookie: cookie.clone(),
            };
            Some(plugins.get(plugin)?.service(&handle).await.map(Answer::Service))
        }
        Question::Ingress { plugin, backend, .. } => {
            let targets = plugins.get(plugin)?.ingress_targets(&backend.into()).await;
            Some(targets.map(|targets| Answer::Targets(targets.unwrap_or_default())))
        }
    }
}
