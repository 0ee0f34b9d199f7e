//! Upgraded connections: bytes both ways, counted as demand for as long as they move.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::client::ConnectionPermit;
use crate::copy::{Activity, CopyTimeouts, copy};
use crate::demand_counters::Counted;
use crate::pool::Load;
use crate::upload::Upload;

/// Both ends of a connection that is about to change its protocol.
#[derive(Debug)]
pub(crate) struct Tunnel {
    client: OnUpgrade,
    workload: OnUpgrade,
    activity: Arc<Activity>,
    timeouts: CopyTimeouts,
}

impl Tunnel {
    /// What the client's connection becomes; to be taken before its request is forwarded.
    pub(crate) fn client(request: &mut Request<Upload>) -> OnUpgrade {
        hyper::upgrade::on(request)
    }

    pub(crate) fn new(
        client: OnUpgrade,
        response: &mut Response<Incoming>,
        activity: Arc<Activity>,
        timeouts: CopyTimeouts,
    ) -> Self {
        Self {
            client,
            workload: hyper::upgrade::on(response),
            activity,
            timeouts,
        }
    }

    /// Copies until both sides have ended, one of them fails, no bytes move for too long, or the DLX closes what is left.
    pub(crate) async fn run(
        self,
        _counted: Counted,
        _load: Load,
        _place: Arc<ConnectionPermit>,
        closed: CancellationToken,
    ) {
        let work = async {
            let (client, workload) = futures::future::try_join(self.client, self.workload).await?;
            let (mut client, mut workload) = (TokioIo::new(client), TokioIo::new(workload));
            let copied = copy(
                &mut client,
                &mut workload,
                Bytes::new(),
                &self.activity,
                self.timeouts,
            )
            .await;
            if let Err(error) = copied {
                tracing::debug!(%error, "an upgraded connection broke off");
            }
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            done = work => if let Err(error) = done {
                tracing::debug!(%error, "an upgrade came to nothing");
            },
            () = closed.cancelled() => {}
        }
    }
}
