//! What the workers of a storm have written down, beside what all of its buses say.

use std::collections::HashMap;
use std::path::Path;

use qbus::Bus;
use qbus_aggregate::{Ledger, Reader, Series, Tally, Value};
use qbus_tests::{Journal, Totals};

/// What a storm's buses say, those that were removed and the one that is there, at rest.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// By journal.
    found: HashMap<String, f64>,
    ledger: Tally,
    by_nobody: u64,
    /// What lies in removed buses, at most: no aggregator counted it, and none will.
    pub(crate) unread: u64,
    /// What is on the page of a removed bus and was not counted yet when its aggregator ended.
    uncounted: u64,
}

/// What the journals say together.
#[derive(Debug, Default)]
struct Journals {
    attempted: u64,
    accepted: u64,
    full: u64,
    revoked: u64,
    unowned: u64,
    removed: u64,
    /// Calls that their callers died inside of.
    open: u64,
}

impl Accounts {
    /// Adds a bus that nobody emits to any more, at rest or `is_removed`.
    pub(crate) fn add(&mut self, bus: &Bus, reader: &mut Reader, is_removed: bool) {
        let ledger = Ledger::read(bus, Some(reader)).expect("the locks answer");
        let mut found = 0;
        for series in &Totals::read(bus, reader).series {
            *self.found.entry(journal(series)).or_default() += sum(series);
            found += sum(series) as u64;
        }
        let delivered = ledger.total.delivered;
        let waits = |lane: &qbus::LaneView| lane.fill + lane.waiting_calls;
        let unread = self.unread;
        self.unread += bus.lanes().iter().map(waits).sum::<u64>();
        assert!(delivered <= found, "{found} found, {ledger:?}");
        if is_removed {
            self.uncounted += found - delivered;
        } else {
            assert_eq!(self.unread, unread, "left in the bus that is there");
        }
        self.ledger = self.ledger.plus(&ledger.total);
        self.by_nobody += ledger.unowned;
    }

    /// Checks them against the journals; how many records were attempted.
    ///
    /// Of a process whose lock somebody closed, the record that it was inside of when it was
    /// thought dead may lie in the place of another's: `closes` is how often that could be.
    pub(crate) fn check(&self, journals: &Path, closes: u64) -> u64 {
        let told = self.read(journals, closes);
        let (ledger, unread) = (&self.ledger, self.unread);
        let nobody = self.by_nobody;
        let parts = format!("{ledger:?}, {nobody} of nobody, {unread} unread; {told:?}");
        let within = |found, least| (least..=least + told.open).contains(&found);
        // The ledger may lack a call that its caller died inside of: a cell's value is stored
        // before its pulse.
        let found = self.found.values().sum::<f64>() as u64;
        assert!(
            found <= ledger.delivered + self.uncounted + told.open,
            "{found} found, {parts}"
        );
        let is_there =
            told.accepted <= found + unread + closes && found <= told.accepted + told.open + closes;
        assert!(is_there, "{found} found, {parts}");
        // Who lost its lock is thought dead: what it finds revoked was counted as torn.
        let given_up = ledger.revoked + ledger.torn;
        let refused = ledger.dropped() + self.by_nobody;
        let accounted = ledger.delivered + refused + given_up;
        let is_whole = accounted <= told.attempted
            && told.attempted <= accounted + self.uncounted + unread + told.open;
        assert!(is_whole, "{parts}");
        let is_given_up = given_up <= told.revoked + told.open && told.revoked <= given_up + unread;
        assert!(is_given_up, "{parts}");
        // Of an emit on a removed bus either may say so.
        assert!(
            within(refused, told.full + told.unowned + told.removed),
            "{parts}"
        );
        if unread == 0 && told.removed == 0 {
            assert!(within(ledger.dropped_full, told.full), "{parts}");
        }
        assert!(told.unowned * 10 <= told.attempted, "{parts}");
        assert_eq!((ledger.rejected, ledger.violations), (0, 0), "{parts}");
        told.attempted
    }

    fn read(&self, journals: &Path, closes: u64) -> Journals {
        let (mut told, mut misplaced) = (Journals::default(), [0, 0]);
        for entry in std::fs::read_dir(journals).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.metadata().expect("a file").len() == 0 {
                // Killed before the first attempt.
                continue;
            }
            let entries = Journal::open(&path).read();
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(entries.open_calls() <= 1, "{name}: {entries:?}");
            let open = entries.open_calls() + entries.untold;
            let found = self.found.get(&*name).copied().unwrap_or(0.0) as u64;
            misplaced[0] += entries.accepted.saturating_sub(found);
            misplaced[1] += found.saturating_sub(entries.accepted + open);
            let is_right = misplaced[0] <= closes + self.unread && misplaced[1] <= closes;
            let unread = self.unread;
            assert!(
                is_right,
                "{name}: {entries:?}, but {found}; {closes} closed, {unread} unread"
            );
            told.attempted += entries.attempted;
            told.accepted += entries.accepted;
            told.full += entries.full;
            told.revoked += entries.revoked;
            told.unowned += entries.unowned;
            told.removed += entries.removed;
            told.open += open;
        }
        told
    }
}

/// The number of the journal that a series belongs to.
pub(crate) fn journal(series: &Series) -> String {
    let (_, value) = &series.labels[0];
    value.clone()
}

/// What was counted to a series.
pub(crate) fn sum(series: &Series) -> f64 {
    match series.value {
        Value::Counter(sum) => sum.value(),
        _ => panic!("{series:?} is no counter"),
    }
}
