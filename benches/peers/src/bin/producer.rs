//! The least that a producer does: its size is measured.

use qbus::Bus;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let bus: Bus = std::env::args().nth(1).unwrap_or_default().parse()?;
    bus.counter("requests_total").register()?.inc();
    Ok(())
}
