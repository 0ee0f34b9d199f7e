//! Bytes both ways between two connections, whatever they mean.
//!
//! What was read is written before more is read, so a side that does not read stops the other one, and nothing is kept but
//! what one read brought. An idle connection keeps no buffer at all. The end of one direction is passed on and leaves the
//! other one open.

mod activity;

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use activity::Activity;

/// Most that one read brings.
const READ: usize = 16 << 10;
/// How long the rest of a direction may still move once the other one has failed: a workload may have answered before
/// it stopped reading.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// How long a connection may be without any bytes. None: as long as both sides like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyTimeouts {
    /// While both sides are open.
    pub(crate) open: Option<Duration>,
    /// After one side has ended its direction.
    pub(crate) half_open: Option<Duration>,
}

/// How copying ended, if not by both sides' ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// One of the connections failed.
    #[error("the connection of {side} failed: {error}")]
    Failed { side: &'static str, error: io::Error },
    /// No bytes for too long.
    #[error("no bytes moved for {} s", .0.as_secs_f64())]
    Idle(Duration),
}

/// One direction.
struct Way {
    /// What was read and could not be written yet.
    pending: Bytes,
    state: State,
    /// Its reader is the workload.
    answers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// Its reader has ended; its writer is still to be told.
    Ending,
    Ended,
    Failed,
}

impl Way {
    fn new(pending: Bytes, answers: bool) -> Self {
        Self {
            pending,
            state: State::Copying,
            answers,
        }
    }

    fn open(&self) -> bool {
        matches!(self.state, State::Copying | State::Ending)
    }

    /// Copies as much as can be copied now. The name of the side that failed comes with the error.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        activity: &Activity,
    ) -> Poll<Result<(), (bool, io::Error)>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (reads, writes) = (self.answers, !self.answers);
        loop {
            while !self.pending.is_empty() {
                let written =
                    ready!(Pin::new(&mut *writer).poll_write(cx, &self.pending)).map_err(|e| (writes, e))?;
                if written == 0 {
                    return Poll::Ready(Err((writes, io::ErrorKind::WriteZero.into())));
                }
                self.pending.advance(written);
                activity.moved();
            }
            match self.state {
                State::Copying => {
                    let mut space = [const { MaybeUninit::<u8>::uninit() }; READ];
                    let mut read = ReadBuf::uninit(&mut space);
                    if Pin::new(&mut *reader)
                        .poll_read(cx, &mut read)
                        .map_err(|e| (reads, e))?
                        .is_pending()
                    {
                        // What a writer keeps back, if it keeps anything, is not to wait for the next bytes.
                        let _ = Pin::new(&mut *writer).poll_flush(cx).map_err(|e| (writes, e))?;
                        return Poll::Pending;
                    }
                    let read = read.filled();
                    if read.is_empty() {
                        self.state = State::Ending;
                        continue;
                    }
                    activity.moved();
                    if self.answers {
                        activity.workload_spoke();
                    }
                    let written = match Pin::new(&mut *writer)
                        .poll_write(cx, read)
                        .map_err(|e| (writes, e))?
                    {
                        Poll::Ready(written) => written,
                        Poll::Pending => 0,
                    };
                    if written < read.len() {
                        self.pending = Bytes::copy_from_slice(&read[written..]);
                    }
                }
                State::Ending => {
                    // Who has closed altogether cannot be told any more, and need not be.
                    let _ = ready!(Pin::new(&mut *writer).poll_shutdown(cx));
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Ended | State::Failed => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Copies until both sides have ended. `begun` was read from the client before.
pub(crate) async fn copy<C, W>(
    client: &mut C,
    workload: &mut W,
    begun: Bytes,
    activity: &Activity,
    timeouts: CopyTimeouts,
) -> Result<(), Broken>
where
    C: AsyncRead + AsyncWrite + Unpin,
    W: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Way::new(begun, false);
    let mut back = Way::new(Bytes::new(), true);
    let mut failed: Option<(&'static str, io::Error)> = None;
    let mut timer: Pin<&mut Sleep> = pin!(sleep_until(Instant::now()));
    let mut armed = None;
    std::future::poll_fn(|cx| {
        if there.open()
            && let Poll::Ready(Err(error)) = there.poll(cx, client, workload, activity)
        {
            there.state = State::Failed;
            failed.get_or_insert(named(error));
        }
        if back.open()
            && let Poll::Ready(Err(error)) = back.poll(cx, workload, client, activity)
        {
            back.state = State::Failed;
            failed.get_or_insert(named(error));
        }
        // Without its reader nobody waits for an answer; without its writer a workload may still have answered.
        let over = match &failed {
            Some((CLIENT, _)) => true,
            Some(_) => !back.open(),
            None => !there.open() && !back.open(),
        };
        if over {
            return Poll::Ready(match failed.take() {
                Some((side, error)) => Err(Broken::Failed { side, error }),
                None => Ok(()),
            });
        }
        let limit = if failed.is_some() {
            Some(LAST_BYTES)
        } else if there.open() && back.open() {
            timeouts.open
        } else {
            timeouts.half_open
        };
        let Some(limit) = limit else { return Poll::Pending };
        if armed != Some(limit) {
            armed = Some(limit);
            timer.as_mut().reset(activity.last() + limit);
        }
        // One timer for all bytes: when it fires, it looks when the last ones moved.
        while timer.as_mut().poll(cx).is_ready() {
            let until = activity.last() + limit;
            if Instant::now() >= until {
                return Poll::Ready(Err(match failed.take() {
                    Some((side, error)) => Broken::Failed { side, error },
                    None => Broken::Idle(limit),
                }));
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    })
    .await
}

const CLIENT: &str = "the client";

fn named((workload, error): (bool, io::Error)) -> (&'static str, io::Error) {
    (if workload { "the workload" } else { CLIENT }, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    const FOREVER: CopyTimeouts = CopyTimeouts {
        open: None,
        half_open: None,
    };

    struct Ends {
        client: DuplexStream,
        workload: DuplexStream,
        activity: Arc<Activity>,
        copying: JoinHandle<Result<(), Broken>>,
    }

    fn between(room: usize, begun: &'static [u8], timeouts: CopyTimeouts) -> Ends {
        let (client, mut near) = duplex(room);
        let (workload, mut far) = duplex(room);
        let activity = Activity::new(Duration::from_secs(1));
        let seen = Arc::clone(&activity);
        let copying = tokio::spawn(async move {
            copy(&mut near, &mut far, Bytes::from_static(begun), &seen, timeouts).await
        });
        Ends {
            client,
            workload,
            activity,
            copying,
        }
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        for client_first in [true, false] {
            let ends = between(64, b"", FOREVER);
            let (mut first, mut second) = if client_first {
                (ends.client, ends.workload)
            } else {
                (ends.workload, ends.client)
            };
            first.write_all(b"question").await.unwrap();
            first.shutdown().await.unwrap();
            let mut read = String::new();
            second.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "question");
            second.write_all(b"answer after the end").await.unwrap();
            second.shutdown().await.unwrap();
            let mut read = String::new();
            first.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "answer after the end");
            ends.copying.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first() {
        let mut ends = between(64, b"begun ", FOREVER);
        ends.client.write_all(b"and gone on").await.unwrap();
        let mut read = [0; 17];
        ends.workload.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"begun and gone on");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_stops_the_other_side() {
        let mut ends = between(1024, b"", FOREVER);
        let mut sent = 0;
        // The clock stands still unless everybody waits.
        while let Ok(written) =
            tokio::time::timeout(Duration::from_secs(1), ends.client.write(&[7; 512])).await
        {
            sent += written.unwrap();
        }
        assert!(sent <= 2 * 1024 + READ, "{sent} bytes were taken");
        let mut rest = vec![0; sent];
        ends.workload.read_exact(&mut rest).await.unwrap();
        ends.workload.write_all(b"the other way is free").await.unwrap();
        let mut read = [0; 21];
        ends.client.read_exact(&mut read).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_after_its_limit_and_bytes_begin_it_anew() {
        let timeouts = CopyTimeouts {
            open: Some(Duration::from_secs(60)),
            half_open: Some(Duration::from_secs(10)),
        };
        let mut ends = between(64, b"", timeouts);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            ends.workload.write_all(b"x").await.unwrap();
            ends.client.read_u8().await.unwrap();
        }
        let last = ends.activity.last();
        let broken = ends.copying.await.unwrap().unwrap_err();
        assert!(
            matches!(broken, Broken::Idle(limit) if limit.as_secs() == 60),
            "{broken}"
        );
        assert!(last.elapsed() >= Duration::from_secs(60));

        let mut ends = between(64, b"", timeouts);
        ends.client.shutdown().await.unwrap();
        let broken = ends.copying.await.unwrap().unwrap_err();
        assert!(
            matches!(broken, Broken::Idle(limit) if limit.as_secs() == 10),
            "{broken}"
        );
    }

    #[tokio::test]
    async fn an_answer_of_a_workload_that_does_not_read_reaches_the_client() {
        let mut ends = between(64, b"", FOREVER);
        ends.workload.write_all(b"go away").await.unwrap();
        drop(ends.workload);
        let mut read = String::new();
        ends.client.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "go away");
    }
}
