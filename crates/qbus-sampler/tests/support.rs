//! A page of samples, and how to ask it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, Outcome, Sampler, SamplerOptions, Source, Trend};

/// The samples of one tick, by `name{label="value",…}`.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) samples: BTreeMap<String, f64>,
    /// How each metric behaves in time.
    pub(crate) trends: BTreeMap<String, Trend>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// A sampler of these sources alone.
pub(crate) fn sampler(sources: &[Source], change: impl FnOnce(&mut SamplerOptions)) -> Sampler {
    let mut config = SamplerOptions {
        sources: sources.to_vec(),
        patience: Duration::from_secs(20),
        ..SamplerOptions::default()
    };
    change(&mut config);
    Sampler::new(config)
}

pub(crate) fn tick(sampler: &mut Sampler, now: Instant, attached: &[Attached]) -> Page {
    let mut page = Page::default();
    let attached: Arc<[Attached]> = attached.into();
    let outcomes = sampler.sample(now, &attached, &mut |sample| {
        let mut key = sample.metric.name.clone().into_owned();
        let known = page.trends.insert(key.clone(), sample.metric.trend);
        assert!(
            known.is_none_or(|known| known == sample.metric.trend),
            "{key}"
        );
        for (place, (name, value)) in sample.labels.iter().enumerate() {
            key += if place == 0 { "{" } else { "," };
            key += &format!("{name}={value:?}");
        }
        if !sample.labels.is_empty() {
            key += "}";
        }
        assert!(sample.value.is_finite(), "{key}");
        assert_eq!(
            page.samples.insert(key.clone(), sample.value),
            None,
            "{key} came twice"
        );
    });
    page.outcomes = outcomes.to_vec();
    page
}

/// A page of these sources alone.
pub(crate) fn page(sources: &[Source]) -> Page {
    tick(&mut sampler(sources, |_| {}), Instant::now(), &[])
}

impl Page {
    /// The value of that series, which must be there.
    #[track_caller]
    pub(crate) fn value(&self, key: &str) -> f64 {
        match self.samples.get(key) {
            Some(value) => *value,
            None => panic!("no {key} in {self:#?}"),
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.samples.contains_key(key)
    }

    #[track_caller]
    pub(crate) fn outcome(&self, source: &str) -> &Outcome {
        self.outcomes
            .iter()
            .find(|outcome| outcome.source == source)
            .expect(source)
    }
}

/// Asserts that `value` lies between two readings made before and after it, give or take `slack`.
#[track_caller]
pub(crate) fn assert_between(before: f64, value: f64, after: f64, slack: f64) {
    assert!(
        before - slack <= value && value <= after + slack,
        "{value} is not in {before}..={after}, give or take {slack}"
    );
}

/// Writes the files of a fixture tree.
pub(crate) fn write_tree<P: AsRef<Path>>(root: &Path, files: &[(P, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A process that ends with the test, however that ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
