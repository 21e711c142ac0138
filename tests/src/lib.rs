//! What the process tests share: a bus and processes that go away with their test, waits with a
//! bound, and the totals that everything is checked against.

mod bus;
mod fork;
mod host;
mod journal;
mod life;
mod load;
pub mod plant;
mod process;
mod random;
mod terminal;
mod totals;

pub use bus::{Place, TestBus};
pub use fork::{
    await_child, begin_session, close_descriptors, exit_at_once, fork, has_child, raw_clone,
};
pub use host::Host;
pub use journal::{Entries, Journal};
pub use life::Life;
pub use load::{Lane, Load, Report, lease};
pub use process::{Finished, LIMIT, Process, command, run, until};
pub use random::Random;
pub use terminal::Terminal;
pub use totals::{Totals, check_load};
