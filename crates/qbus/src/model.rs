//! What the models of this crate and its neighbours share.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What the executions of a model came to. All of them together, outside of what loom explores.
#[derive(Debug)]
pub struct Outcomes<T>(Arc<Mutex<BTreeSet<T>>>);

impl<T: Ord + Debug> Outcomes<T> {
    /// Notes how an execution ended.
    pub fn note(&self, outcome: T) {
        self.0.lock().unwrap().insert(outcome);
    }
}

/// Runs every execution of `model` within the bound on preemptions; says how many there were, and
/// returns the different outcomes.
///
/// Loom remembers only the last access to a word, so a model can explore far less than it seems to:
/// the numbers of executions and outcomes are printed for people to judge.
pub fn explore<T: Ord + Debug + Send + 'static>(
    name: &str,
    model: impl Fn(&Outcomes<T>) + Send + Sync + 'static,
) -> BTreeSet<T> {
    let outcomes = Outcomes(Arc::new(Mutex::new(BTreeSet::new())));
    let executions = Arc::new(Mutex::new(0_u64));
    let (noted, counted) = (outcomes.0.clone(), executions.clone());
    let start = Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    builder.check(move || {
        *counted.lock().unwrap() += 1;
        crate::sync::cut_after(u64::MAX);
        crate::sync::drop_fences(false);
        model(&outcomes);
    });
    let found = std::mem::take(&mut *noted.lock().unwrap());
    eprintln!(
        "model {name}: {} executions, {} outcomes, {:.1} s",
        executions.lock().unwrap(),
        found.len(),
        start.elapsed().as_secs_f64()
    );
    found
}
