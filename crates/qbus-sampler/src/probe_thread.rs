//! A source on a thread of its own, for reads that may hang.
//!
//! Buffers travel: a request carries an empty one, the answer brings it back filled. A thread that
//! hangs keeps its buffer and is never waited for at the end: it goes when its call returns.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Attached;
use crate::probe::{Failure, Probe, Tick, read_guarded};
use crate::readings::Readings;

/// The sampler's end of the thread.
pub(crate) struct ProbeThread {
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
    /// The tick that asked and has had no answer yet.
    pub(crate) asked: Option<Instant>,
}

struct Request {
    now: Instant,
    attached: Arc<[Attached]>,
    readings: Readings,
}

/// What one read brought.
pub(crate) struct Answer {
    /// The tick that asked for it.
    pub(crate) asked: Instant,
    pub(crate) readings: Readings,
    pub(crate) result: Result<(), Failure>,
    pub(crate) took: Duration,
}

impl ProbeThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// That of the kernel where it grants no further thread.
    pub(crate) fn start(name: &str, mut probe: Box<dyn Probe>) -> io::Result<ProbeThread> {
        let (requests, inbox) = mpsc::sync_channel::<Request>(1);
        let (outbox, answers) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name(format!("qbus-{name}"))
            .spawn(move || {
                while let Ok(Request {
                    now,
                    attached,
                    mut readings,
                }) = inbox.recv()
                {
                    let start = Instant::now();
                    let tick = Tick {
                        now,
                        attached: &attached,
                    };
                    let result = read_guarded(probe.as_mut(), &tick, &mut readings);
                    let answer = Answer {
                        asked: now,
                        readings,
                        result,
                        took: start.elapsed(),
                    };
                    if outbox.send(answer).is_err() {
                        return;
                    }
                }
            })?;
        Ok(ProbeThread {
            requests,
            answers,
            asked: None,
        })
    }

    /// Asks for a read, unless the thread is still at the last one.
    pub(crate) fn ask(&mut self, now: Instant, attached: &Arc<[Attached]>, mut readings: Readings) {
        readings.clear();
        let request = Request {
            now,
            attached: Arc::clone(attached),
            readings,
        };
        if self.asked.is_none() && self.requests.try_send(request).is_ok() {
            self.asked = Some(now);
        }
    }

    /// The answer, if it is there within `patience`.
    pub(crate) fn answer(&mut self, patience: Duration) -> Option<Answer> {
        let answer = match self.answers.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => match self.answers.recv_timeout(patience) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            },
        };
        self.asked = None;
        Some(answer)
    }
}
