//! Sending on what a collector has.

use std::io;

use qbus_agent::push::{PushError, PushOptions, Pusher};

use crate::collector::Collector;

impl Collector {
    /// Sends all series on, of every process of the bus, by remote write or OTLP, on threads of its
    /// own, until the pusher is stopped or dropped: before the collector, so that what came last is
    /// sent as well. `report` hears of what a person should know; the last of it is also among the
    /// collector's statistics.
    ///
    /// One process of a bus does so; on a named bus that is `qbus agg` as a rule.
    ///
    /// # Errors
    ///
    /// A file that a destination names cannot be read, or there is no thread. A private bus has
    /// another name each time: nobody would find again what it left in a queue's folder, which is
    /// refused.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use qbus_collector::{Collector, CollectorOptions, Destination, Protocol, PushOptions};
    /// let collector = Collector::new(&CollectorOptions::default())?;
    /// let to = "http://prometheus:9090/api/v1/write";
    /// let options = PushOptions {
    ///     destinations: vec![Destination::parse(to, Protocol::RemoteWrite)?],
    ///     labels: vec![("job".to_owned(), "training".to_owned())],
    ///     ..PushOptions::default()
    /// };
    /// let pusher = collector.push(options, |news| eprintln!("{news}"))?;
    /// // …
    /// pusher.stop();
    /// # Ok(()) }
    /// ```
    pub fn push(
        &self,
        options: PushOptions,
        report: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Pusher, PushError> {
        if let Some(folder) = options.queue_folder.clone().filter(|_| self.is_embedded()) {
            let why = "the bus is private and has another name each time, name one to go on with \
                its queue";
            let source = io::Error::other(why);
            return Err(PushError::Queue { folder, source });
        }
        let counts = self.counts.clone();
        let report = move |news: String| {
            counts.note(news.clone());
            report(news);
        };
        let snapshot = self.bus().address().snapshot_link();
        Pusher::start(self.bus(), snapshot, options, report)
    }
}
