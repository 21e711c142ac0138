//! Registrations that found no room: the same one again, in a loop of a program that goes on
//! without it, is answered by one look here until anything changes in the registry.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use crate::registry::FamilyDefinition;
use crate::sync::{Ordering, PrivateU64};

/// How many are remembered; a power of two. Each takes the place of an older one.
const REMEMBERED: usize = 1024;

/// What a bus refused this process.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Fingerprints, each in the place that its low bits say; made with the first refusal.
    known: OnceLock<Box<[PrivateU64]>>,
}

impl Refusals {
    pub(super) fn has(&self, fingerprint: u64) -> bool {
        let place = self.known.get().map(|known| &known[place(fingerprint)]);
        place.is_some_and(|place| place.load(Ordering::Relaxed) == fingerprint)
    }

    pub(super) fn remember(&self, fingerprint: u64) {
        let none = || (0..REMEMBERED).map(|_| PrivateU64::new(0)).collect();
        let known = self.known.get_or_init(none);
        known[place(fingerprint)].store(fingerprint, Ordering::Relaxed);
    }
}

fn place(fingerprint: u64) -> usize {
    fingerprint as usize & (REMEMBERED - 1)
}

/// Of all that decides whether there is room, in a registry of that version: in another one it is
/// another.
pub(super) fn fingerprint(
    family: &FamilyDefinition,
    labels: &[(String, String)],
    version: (u64, u64),
) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    (&family.name, family.metric_type.to_raw()).hash(&mut hasher);
    (&family.help, &family.unit, family.native).hash(&mut hasher);
    for bound in &family.buckets {
        bound.to_bits().hash(&mut hasher);
    }
    labels.hash(&mut hasher);
    hasher.finish()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{Address, Bus, BusOptions, Geometry, RegisterError, Removal};

    /// What is remembered of a full registry is no reason to refuse what fits.
    #[test]
    fn what_was_refused_is_refused_again_until_something_changes() {
        let address = format!("test-refusals-{}", std::process::id());
        let address: Address = address.parse().expect("a name");
        let _removed = Removed(address.clone());
        let options = BusOptions {
            geometry: Geometry {
                series: 4,
                arena_words: 256,
                ..Geometry::default()
            },
            ..BusOptions::default()
        };
        let bus = Bus::create(&address, &options).expect("a new bus");
        let register = |value: &str| bus.counter("a_total").label("l", value).register();
        // It does not fit into the arena; what is shorter does.
        let long = "x".repeat(1024);
        for _ in 0..8 {
            register("0").expect("room");
            let large: Vec<_> = (0..3).map(|n| register(&format!("{n}{long}"))).collect();
            assert!(
                matches!(large[2], Err(RegisterError::Full { .. })),
                "{large:?}"
            );
        }
        let refused = bus.counts().refused_series;
        assert!(refused >= 8, "each one counts: {refused}");
        let texts = [(); 3].map(|()| register(&long).expect_err("full").to_string());
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        assert_eq!(bus.counts().refused_series, refused + 3);
        register("short").expect("room for a short one");
        register("short").expect("a known one");
        let again = register(&long);
        assert!(
            matches!(again, Err(RegisterError::Full { .. })),
            "{again:?}"
        );
    }

    /// Removes a bus also when the test fails.
    struct Removed(Address);

    impl Drop for Removed {
        fn drop(&mut self) {
            let _ = Bus::remove(&self.0, Removal::Forced);
        }
    }
}
