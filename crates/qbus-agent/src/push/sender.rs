//! Sends what a queue has, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Log;
use super::batch::{Batch, Body, Encoding};
use super::client::Client;
use super::queue::{Next, Queue};
use super::reply::Verdict;
use super::retry::Backoff;

/// A failure that repeats is reported this often.
const REPORT_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Sending {
    client: Client,
    queue: Arc<Queue>,
    shown: String,
    report: Log,
    /// Since when the receiver takes nothing.
    away: Option<Instant>,
    told: Option<Instant>,
    /// When the disk was complained of.
    troubled: Option<Instant>,
    /// Whether the receiver takes the second encoding alone.
    is_second: bool,
}

/// What to do after a request.
enum Then {
    Settled,
    End,
}

impl Sending {
    pub(super) fn new(client: Client, queue: Arc<Queue>, shown: String, report: Log) -> Sending {
        Sending {
            client,
            queue,
            shown,
            report,
            away: None,
            told: None,
            troubled: None,
            is_second: false,
        }
    }

    pub(super) fn run(mut self) {
        while let Next::Send { number, batch } = self.queue.next() {
            if let Then::End = self.send(number, &batch) {
                break;
            }
            self.tell_trouble();
        }
        self.queue.note_end();
    }

    /// Tells what is wrong with the disk: most often while nothing is taken, and much waits.
    fn tell_trouble(&mut self) {
        if let Some(trouble) = self.queue.trouble()
            && self
                .troubled
                .is_none_or(|told| told.elapsed() >= REPORT_EVERY)
        {
            self.troubled = Some(Instant::now());
            (self.report)(format!("{}: the queue's folder: {trouble}", self.shown));
        }
    }

    /// Sends a request until something has become of it.
    fn send(&mut self, number: u64, batch: &Batch) -> Then {
        let mut backoff = Backoff::default();
        loop {
            let Some(body) = self.body(batch) else {
                self.complain("a request has no encoding that the receiver takes");
                self.queue
                    .settle(number, |counts, samples| counts.failed += samples);
                return Then::Settled;
            };
            match self
                .client
                .send(body, batch.samples, self.queue.time_left())
            {
                Verdict::Taken { rejected, word } => {
                    self.taken(rejected, &word);
                    self.queue.prove(body.encoding == Encoding::RemoteWriteTwo);
                    self.queue.settle(number, |counts, samples| {
                        counts.rejected += rejected.min(samples);
                        counts.sent += samples.saturating_sub(rejected);
                    });
                    return Then::Settled;
                }
                Verdict::Refused { written, why } => {
                    let refused = batch.samples.saturating_sub(written);
                    self.complain(&format!("{refused} samples are refused for good: {why}"));
                    self.queue.settle(number, |counts, samples| {
                        counts.failed += samples.saturating_sub(written);
                        counts.sent += written.min(samples);
                    });
                    return Then::Settled;
                }
                Verdict::OtherEncoding(why) => {
                    if !self.is_second {
                        (self.report)(format!(
                            "{}: the receiver does not take remote write 2.0 ({why}): 1.0 from now \
                             on",
                            self.shown
                        ));
                    }
                    self.is_second = true;
                    self.queue.prove(false);
                }
                Verdict::Later { after, why } => {
                    self.away.get_or_insert_with(Instant::now);
                    self.complain(&format!("nothing is taken at the moment: {why}"));
                    self.tell_trouble();
                    if !self.queue.pause(backoff.next(after)) {
                        return Then::End;
                    }
                }
            }
        }
    }

    /// In the encoding that the receiver takes, as far as that is known.
    fn body<'a>(&self, batch: &'a Batch) -> Option<&'a Body> {
        match (batch.bodies.as_slice(), self.is_second) {
            ([_, second, ..], true) => Some(second),
            // Of a queue on disk: from when the receiver took the first one.
            ([only], true) if only.encoding == Encoding::RemoteWriteTwo => None,
            ([first, ..], _) => Some(first),
            ([], _) => None,
        }
    }

    fn taken(&mut self, rejected: u64, word: &str) {
        if let Some(away) = self.away.take() {
            let waiting = self.queue.counts().waiting.saturating_sub(1);
            let (seconds, shown) = (away.elapsed().as_secs_f64(), &self.shown);
            self.told = None;
            (self.report)(format!(
                "{shown}: requests are taken again after {seconds:.1} s; {waiting} wait"
            ));
        }
        if rejected > 0 {
            self.complain(&format!("{rejected} points were rejected: {word}"));
        } else if !word.is_empty() {
            self.complain(&format!("the receiver warns: {word}"));
        }
    }

    /// Tells a person, now and then.
    fn complain(&mut self, what: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= REPORT_EVERY) {
            self.told = Some(Instant::now());
            (self.report)(format!("{}: {what}", self.shown));
        }
    }
}
