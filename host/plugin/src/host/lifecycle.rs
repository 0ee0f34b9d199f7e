//! The `lifecycle` interface. Linked only when it is granted; the services know whose resources are whose.

use dormouse_model::Phase;

use super::{Import, TIMED_OUT, TimedOut, clip};
use crate::bindings::dormouse::plugin::{lifecycle as wit, types};
use crate::services::{LifecycleError, SleeperView};
use crate::state::CallState;
use crate::types::ResourceId;

/// Bytes of a reason: it is shown in a printer column.
const REASON: usize = 1 << 10;

type Answer<T> = wasmtime::Result<Result<T, wit::LifecycleError>>;

impl TimedOut for LifecycleError {
    fn timed_out() -> LifecycleError {
        LifecycleError::Timeout(TIMED_OUT.into())
    }
}

impl wit::Host for CallState {
    async fn sleep(&mut self, resource: types::ResourceId, reason: String) -> Answer<()> {
        let call = self.enter(Import::Sleep)?;
        let (resource, reason) = (ResourceId::from(resource), clip(reason, REASON));
        let answer = call
            .shared
            .services
            .sleep(&call.shared.name, &resource, &reason, call.deadline);
        let answer = call.in_time(answer).await;
        if let Err(LifecycleError::Denied(text)) = &answer {
            call.shared.metrics.denied("sleep");
            tracing::warn!(resource = %resource, "not put to sleep: {text}");
        }
        Ok(answer.map_err(to_guest))
    }

    async fn wake(&mut self, resource: types::ResourceId, reason: String) -> Answer<()> {
        let call = self.enter(Import::Wake)?;
        let (resource, reason) = (ResourceId::from(resource), clip(reason, REASON));
        let answer = call
            .shared
            .services
            .wake(&call.shared.name, &resource, &reason, call.deadline);
        Ok(call.in_time(answer).await.map_err(to_guest))
    }

    async fn state(&mut self, resource: types::ResourceId) -> Answer<Option<wit::Sleeper>> {
        let call = self.enter(Import::State)?;
        let resource = ResourceId::from(resource);
        let answer = call
            .shared
            .services
            .state(&call.shared.name, &resource, call.deadline);
        Ok(call
            .in_time(answer)
            .await
            .map(|sleeper| sleeper.map(view))
            .map_err(to_guest))
    }
}

fn view(sleeper: SleeperView) -> wit::Sleeper {
    let phase = match sleeper.phase {
        Phase::Awake => wit::Phase::Awake,
        Phase::Diverting | Phase::Observing | Phase::Draining => wit::Phase::GoingToSleep,
        Phase::Asleep => wit::Phase::Asleep,
        Phase::Waking | Phase::Ready => wit::Phase::Waking,
    };
    wit::Sleeper {
        phase,
        phase_text: format!("{:?}", sleeper.phase),
        epoch: sleeper.epoch,
        since: sleeper.since_millis,
        reason: sleeper.reason,
    }
}

fn to_guest(error: LifecycleError) -> wit::LifecycleError {
    match error {
        LifecycleError::UnknownResource(resource) => wit::LifecycleError::UnknownResource(resource.into()),
        LifecycleError::Unsupported(text) => wit::LifecycleError::Unsupported(text),
        // The contract has no word of its own for it.
        LifecycleError::Denied(text) => wit::LifecycleError::Unsupported(format!("denied: {text}")),
        LifecycleError::Superseded(text) => wit::LifecycleError::Superseded(text),
        LifecycleError::Timeout(text) => wit::LifecycleError::Timeout(text),
        LifecycleError::Unavailable(text) => wit::LifecycleError::Unavailable(text),
        LifecycleError::Other(text) => wit::LifecycleError::Other(text),
    }
}
