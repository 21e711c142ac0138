//! Rules that values of a name have to pass.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::collector::lock;

type Rule = Arc<dyn Fn(f64) -> bool + Send + Sync>;

/// Rules by the name of their metric.
#[derive(Default)]
pub(crate) struct Rules {
    /// Whether there is any: without one, an emit takes no lock.
    is_any: AtomicBool,
    by_name: Mutex<HashMap<String, Rule>>,
}

impl Rules {
    pub(crate) fn insert(&self, name: &str, rule: Rule) {
        if let Some(mut by_name) = lock(&self.by_name) {
            by_name.insert(name.to_owned(), rule);
            self.is_any.store(true, Ordering::Release);
        }
    }

    /// Whether the rule of that name, if there is one, takes the value.
    pub(crate) fn accept(&self, name: &str, value: f64) -> bool {
        if !self.is_any() {
            return true;
        }
        let rule = lock(&self.by_name).and_then(|by_name| by_name.get(name).cloned());
        // Outside of the lock: a rule may add metrics itself.
        rule.is_none_or(|rule| rule(value))
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// Forgets all, with what they hold.
    pub(crate) fn clear(&self) {
        let forgotten = lock(&self.by_name).map(|mut by_name| mem::take(&mut *by_name));
        // Outside of the lock: what they hold may add metrics when it goes.
        drop(forgotten);
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.by_name).map_or(0, |by_name| by_name.len())
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("len", &self.len()).finish()
    }
}
