//! `qbus sample`

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Clock, MetricType};
use qbus_agent::{metric_type, owned};
use qbus_aggregate::export::{Options, export};
use qbus_aggregate::{Family, Series, Snapshot, Value};
use qbus_sampler::{Metric, News, Outcome, Sampler, SamplerOptions, Source};

use crate::args::Sample;
use crate::error::Error;
use crate::log::warn;
use crate::sampling::options;

/// How long sources have to answer that may hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between the two samples that a ratio over time needs.
const APART: Duration = Duration::from_millis(250);

pub(crate) fn run(sample: &Sample, out: &mut dyn Write) -> Result<(), Error> {
    if sample.list {
        return Ok(list(out)?);
    }
    let options = SamplerOptions {
        patience: PATIENCE,
        own_role: Some("sampler".to_owned()),
        ..options(&sample.sources, false, false)
    };
    let mut sampler = Sampler::new(options);
    let attached = [].into();
    if !sample.once {
        say(sampler.sample(Instant::now(), &attached, &mut |_| ()));
        thread::sleep(APART);
    }
    let now_ns = Clock::Precise.now_ns();
    let mut families: HashMap<String, Arc<Family>> = HashMap::new();
    let mut series = Vec::new();
    let outcomes = sampler.sample(Instant::now(), &attached, &mut |sample| {
        let family = families.entry(sample.metric.name.to_string());
        let family = family.or_insert_with(|| Arc::new(family_of(sample.metric)));
        let value = match family.metric_type {
            MetricType::Counter => Value::Counter(sample.value.into()),
            _ => Value::Gauge(sample.value),
        };
        series.push(Series {
            family: family.clone(),
            labels: owned(sample.labels),
            value,
            timestamp_ns: now_ns,
            start_ns: now_ns,
            records: 1,
            history: Vec::new(),
            exemplars: Vec::new(),
        });
    });
    say(outcomes);
    for hanging in outcomes.iter().filter(|outcome| outcome.hanging) {
        warn(format_args!(
            "sampling {}: no answer within {PATIENCE:?}",
            hanging.source
        ));
    }
    series.sort_by(|a, b| {
        a.family
            .name
            .cmp(&b.family.name)
            .then_with(|| a.labels.cmp(&b.labels))
    });
    let snapshot = Snapshot {
        epoch: 1,
        unix_ns: now_ns,
        consistent: true,
        series,
    };
    export(&snapshot, sample.format, &Options::default(), out)?;
    Ok(())
}

/// Says what can be sampled.
fn list(out: &mut dyn Write) -> io::Result<()> {
    for source in Source::ALL {
        let default = match source.on_by_default() {
            true => "",
            false => " (off by default)",
        };
        writeln!(out, "{:<12} {}{default}", source.name(), source.about())?;
    }
    Ok(())
}

fn family_of(metric: &Metric) -> Family {
    Family {
        help: metric.help.to_string(),
        unit: metric.unit.to_string(),
        ..Family::new(&metric.name, metric_type(metric.trend))
    }
}

/// What failed, on standard error; what a machine lacks is no failure.
fn say(outcomes: &[Outcome]) {
    for outcome in outcomes {
        for news in &outcome.news {
            if !matches!(news, News::Absent(_)) {
                warn(news.told(outcome.source));
            }
        }
    }
}
