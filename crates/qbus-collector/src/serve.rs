//! Serving what a collector has.

use qbus_agent::serve::{Listen, ServeError, ServeOptions, Server};

use crate::collector::Collector;

impl Collector {
    /// Serves all series, of every process of the bus, at `/metrics`, and the dashboard at `/`,
    /// from a thread of its own, until the server is dropped. `report` hears of what a person
    /// should know: that others can reach the address, say.
    ///
    /// A server has more options ([`qbus_agent::serve`]): TLS, passwords, limits. A private bus is
    /// served at any age, since its aggregator lives as long as the collector; a named one while it
    /// is younger than a minute.
    ///
    /// # Errors
    ///
    /// The address is taken or cannot be bound, or no thread can start.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use qbus_collector::{Collector, CollectorOptions, Metric};
    /// let collector = Collector::new(&CollectorOptions::default())?;
    /// let server = collector.serve("127.0.0.1:0".parse()?, |news| eprintln!("{news}"))?;
    /// collector.add_metric(&Metric::counter("requests_total", 1.0))?;
    /// println!("scrape {}metrics", server.urls()[0]);
    /// # Ok(()) }
    /// ```
    pub fn serve(
        &self,
        listen: Listen,
        report: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Server, ServeError> {
        let address = self.bus().address();
        let mut options = ServeOptions::new(address.snapshot_link());
        options.listen = vec![listen];
        options.bus = Some(address.clone());
        if self.is_embedded() {
            options.max_age = None;
        }
        Server::start(options, report)
    }
}
