//! Pods: the scheduler and the kubelet. One task per pod.

pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod runner;
pub(crate) mod server;
pub(crate) mod status;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::pods::runner::Runner;
use crate::store::{EventKind, Key};
use crate::value::{name_of, namespace_of, uid_of};

struct Known {
    uid: String,
    pod: watch::Sender<Arc<Value>>,
    gone: CancellationToken,
}

#[derive(Default)]
struct Kubelet {
    pods: HashMap<Key, Known>,
}

impl Kubelet {
    fn present(&mut self, core: &Arc<Core>, pod: &Arc<Value>) {
        let key = (namespace_of(pod).to_owned(), name_of(pod).to_owned());
        if let Some(k) = self.pods.get(&key) {
            if k.uid == uid_of(pod) {
                k.pod.send_replace(pod.clone());
                return;
            }
            k.gone.cancel();
        }
        let (tx, rx) = watch::channel(pod.clone());
        let gone = CancellationToken::new();
        let runner = Runner::new(core.clone(), rx, gone.clone());
        core.tasks.spawn(runner.run());
        self.pods.insert(
            key,
            Known {
                uid: uid_of(pod).to_owned(),
                pod: tx,
                gone,
            },
        );
    }

    fn absent(&mut self, core: &Core, key: &Key, uid: &str) {
        if self.pods.get(key).is_some_and(|k| k.uid == uid)
            && let Some(k) = self.pods.remove(key)
        {
            k.gone.cancel();
            core.output.forget(&key.0, &key.1);
        }
    }

    fn everything(&mut self, core: &Arc<Core>) {
        let pods = core.store.all("pods", "");
        let uids: Vec<&str> = pods.iter().map(|p| uid_of(p)).collect();
        let lost: Vec<(Key, String)> = self
            .pods
            .iter()
            .filter(|(_, k)| !uids.contains(&k.uid.as_str()))
            .map(|(key, k)| (key.clone(), k.uid.clone()))
            .collect();
        for (key, uid) in lost {
            self.absent(core, &key, &uid);
        }
        for p in &pods {
            self.present(core, p);
        }
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    let mut events = core.store.subscribe();
    let mut kubelet = Kubelet::default();
    kubelet.everything(&core);
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            e = events.recv() => match e {
                Ok(e) if e.table == "pods" => match e.kind {
                    EventKind::Deleted => kubelet.absent(&core, &e.key, uid_of(&e.object)),
                    _ => kubelet.present(&core, &e.object),
                },
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => kubelet.everything(&core),
                Err(RecvError::Closed) => return,
            },
        }
    }
}
