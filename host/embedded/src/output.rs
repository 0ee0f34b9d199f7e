//! What containers write: to the sink, and the last lines of each pod for `kubectl logs`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::debug;

use crate::options::{OutputLine, OutputSink};

const LINES: usize = 1000;

pub(crate) struct Output {
    sink: Option<OutputSink>,
    last: Mutex<HashMap<(String, String), VecDeque<String>>>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl Output {
    pub fn new(sink: Option<OutputSink>) -> Self {
        Output {
            sink,
            last: Mutex::new(HashMap::new()),
        }
    }

    pub fn line(&self, l: &OutputLine) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = last.entry((l.namespace.clone(), l.pod.clone())).or_default();
            if lines.len() >= LINES {
                lines.pop_front();
            }
            lines.push_back(l.text.clone());
        }
        match &self.sink {
            Some(s) => s(l),
            None => debug!(
                namespace = l.namespace,
                pod = l.pod,
                container = l.container,
                "{}",
                l.text
            ),
        }
    }

    pub fn log(&self, ns: &str, pod: &str) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        for l in last.get(&(ns.to_owned(), pod.to_owned())).into_iter().flatten() {
            out.push_str(l);
            out.push('\n');
        }
        out
    }

    pub fn forget(&self, ns: &str, pod: &str) {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(ns.to_owned(), pod.to_owned()));
    }
}
