//! One source must not be at the mercy of another: sources that fail, panic and hang.

use std::borrow::Cow;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use qbus_sampler::{Failure, Metric, News, Probe, Readings, Sampler, Source, Tick, Trend};

use crate::support::{sampler, tick};

static METRIC: Metric = Metric {
    name: Cow::Borrowed("test_value"),
    trend: Trend::Gauge,
    unit: Cow::Borrowed(""),
    help: Cow::Borrowed("A value."),
};

/// Does what the test tells it to.
struct Told<F>(F);

impl<F: FnMut(&mut Readings) -> Result<(), Failure> + Send> Probe for Told<F> {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        (self.0)(out)
    }
}

fn with_source(
    may_hang: bool,
    read: impl FnMut(&mut Readings) -> Result<(), Failure> + Send + 'static,
) -> Sampler {
    let mut sampler = sampler(&[Source::Load], |config| {
        config.patience = Duration::from_millis(50)
    });
    sampler.add("told", Duration::ZERO, may_hang, Box::new(Told(read)));
    sampler
}

#[test]
fn a_failing_source_is_counted_each_time_and_reported_once() {
    let mut failing = true;
    let mut sampler = with_source(false, move |out| {
        out.push_metric(&METRIC, &[], 1.0);
        failing = !failing;
        match failing {
            true => Ok(()),
            false => Err(Failure::Failed("no luck".into())),
        }
    });
    let now = Instant::now();
    let mut news = Vec::new();
    for second in 0..6 {
        let page = tick(&mut sampler, now + Duration::from_secs(second), &[]);
        assert_eq!(page.outcome("load").samples, 3, "the others go on");
        assert_eq!(
            page.value("test_value"),
            1.0,
            "what was read before the failure counts"
        );
        assert_eq!(page.outcome("told").failures, second / 2 + 1);
        news.extend(page.outcome("told").news.clone());
    }
    assert_eq!(
        news,
        [
            News::Failed("no luck".into()),
            News::Recovered(String::new())
        ]
    );
}

#[test]
fn a_panic_is_a_failure_of_that_source_alone() {
    for may_hang in [false, true] {
        let mut sampler = with_source(may_hang, |_| panic!("out of cheese"));
        let now = Instant::now();
        let mut news = None;
        for second in 0.. {
            let page = tick(&mut sampler, now + Duration::from_secs(second), &[]);
            assert_eq!(page.outcome("load").samples, 3);
            news = news.or(page.outcome("told").news.first().cloned());
            if page.outcome("told").failures >= 2 {
                break;
            }
        }
        assert_eq!(news, Some(News::Failed("panicked: out of cheese".into())));
    }
}

/// A source that reads when it gets leave to, and says that it is about to.
fn gated() -> (Sampler, Sender<f64>, Receiver<()>) {
    let (leave, gate) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let sampler = with_source(true, move |out| {
        begun.send(()).unwrap();
        out.push_metric(&METRIC, &[], gate.recv().unwrap());
        Ok(())
    });
    (sampler, leave, has_begun)
}

#[test]
fn a_source_that_hangs_delays_nobody_and_its_values_age() {
    let (mut sampler, leave, has_begun) = gated();
    let now = Instant::now();
    let at = |second| now + Duration::from_secs(second);
    leave.send(1.0).unwrap();
    // It has a thread of its own, which may need longer than the sampler's patience: the sampler's
    // time stands still meanwhile, or the value might be old when it comes.
    while !tick(&mut sampler, at(0), &[]).has("test_value") {}
    has_begun.recv().unwrap();
    // From here on it hangs.
    let asked = 1;
    let page = tick(&mut sampler, at(asked), &[]);
    has_begun.recv().unwrap();
    assert_eq!(page.value("test_value"), 1.0, "the last value is kept");
    let page = tick(&mut sampler, at(asked + 20), &[]);
    assert!(page.outcome("told").hanging);
    assert_eq!(page.value("test_value"), 1.0);
    assert_eq!(page.outcome("told").failures, 0);
    assert_eq!(page.outcome("load").samples, 3);
    let start = Instant::now();
    let page = tick(&mut sampler, at(asked + 31), &[]);
    let took = start.elapsed();
    assert!(!page.has("test_value"), "its age is bounded");
    assert_eq!(page.outcome("told").failures, 1);
    assert_eq!(
        page.outcome("told").news,
        [News::Failed("no answer within 30s".into())]
    );
    assert_eq!(page.outcome("load").samples, 3);
    // It is waited for in the tick that asks, and not again in each tick of the hang.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let page = tick(&mut sampler, at(asked + 32), &[]);
    assert_eq!(page.outcome("told").failures, 1, "one hang is one failure");
    leave.send(1.5).unwrap();
    while tick(&mut sampler, at(asked + 32), &[])
        .outcome("told")
        .hanging
    {}
    leave.send(2.0).unwrap();
    let page = loop {
        let page = tick(&mut sampler, at(asked + 33), &[]);
        if page.has("test_value") {
            break page;
        }
    };
    assert_eq!(page.value("test_value"), 2.0);
}

#[test]
fn a_hanging_source_does_not_keep_the_sampler_from_ending() {
    let (mut sampler, leave, has_begun) = gated();
    tick(&mut sampler, Instant::now(), &[]);
    has_begun.recv().unwrap();
    // It can be moved to a thread, and be dropped there.
    std::thread::spawn(move || drop(sampler)).join().unwrap();
    drop(leave);
}
