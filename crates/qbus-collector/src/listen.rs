//! Taking what StatsD clients send.

use qbus_agent::listen::{ListenError, ListenOptions, Listeners};

use crate::collector::Collector;

impl Collector {
    /// Takes metrics of StatsD and DogStatsD clients, on threads of its own, until the listeners
    /// are dropped: all who read the bus see them. Drop them before the collector, so that what
    /// came last is aggregated.
    ///
    /// # Errors
    ///
    /// An address is taken, or the mapping file is not as it should be.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use qbus_collector::{Collector, CollectorOptions, ListenOptions};
    /// let collector = Collector::new(&CollectorOptions::default())?;
    /// let options = ListenOptions {
    ///     statsd: vec!["127.0.0.1:0".parse()?],
    ///     ..ListenOptions::default()
    /// };
    /// let listeners = collector.listen(&options)?;
    /// println!("send to {}", listeners.addresses()[0]);
    /// # Ok(()) }
    /// ```
    pub fn listen(&self, options: &ListenOptions) -> Result<Listeners, ListenError> {
        Listeners::start(self.bus(), options)
    }
}
