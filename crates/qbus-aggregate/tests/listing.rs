//! A page that is written while its series are decoded says what a whole snapshot says.

use qbus::{Bus, Geometry, Merge};
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Reader};

use crate::aggregated;

/// Some of each type, in no order; states, an info, and processes that come to one.
fn emit(bus: &Bus) {
    for at in (0..40).rev() {
        let labels = || {
            [
                ("at", format!("{:02}", at * 7 % 40)),
                ("all", "\"x\"".into()),
            ]
        };
        let counter = bus.counter("jobs_total").help("Jobs.").labels(labels());
        counter.register().expect("room").add(f64::from(at) + 0.5);
        let level = bus.gauge("level").labels(labels()).register();
        level.expect("room").set(f64::from(at));
        let wait = bus.histogram("wait_seconds").buckets([0.1, 1.0]).native();
        let wait = wait.labels(labels()).register().expect("room");
        wait.observe_traced(f64::from(at) / 10.0, 7);
        let size = bus.summary("size_bytes").labels(labels()).register();
        size.expect("room").observe(f64::from(at));
        let mode = bus.gauge("mode").labels([("mode", format!("m{at}"))]);
        mode.register().expect("room").set(f64::from(at % 2));
        let busy = bus.gauge("busy").merge(Merge::Sum).labels(labels());
        busy.register().expect("room").set(f64::from(at));
    }
    bus.gauge("build_info").register().expect("room").set(1.0);
    // Never set: it is on no page.
    bus.gauge("never").register().expect("room");
}

#[test]
fn it_says_in_every_format_what_a_snapshot_says() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    emit(&bus);
    aggregator.finish();
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let no_sizes = |name: &str| name != "size_bytes";
    for (history, is_filtered) in [(false, false), (true, false), (false, true)] {
        let matches: Option<&dyn Fn(&str) -> bool> = is_filtered.then_some(&no_sizes);
        let what = ReadOptions { history, matches };
        let options = Options {
            timestamps: true,
            history,
        };
        let labels = [("host".to_owned(), "a7".to_owned())];
        let mut snapshot = reader.read(&what).expect("an epoch");
        snapshot.add_labels(&labels);
        assert!(snapshot.series.len() > 200, "{}", snapshot.series.len());
        for format in Format::ALL {
            let (mut whole, mut listed) = (Vec::new(), Vec::new());
            let left_out = export(&snapshot, format, &options, &mut whole).expect("memory");
            let mut listing = reader.list(&what).expect("an epoch");
            listing.add_labels(&labels);
            let same = export(&listing, format, &options, &mut listed).expect("memory");
            assert_eq!(left_out, same, "{format}");
            assert!(whole == listed, "{format}");
            // What a page without timestamps does not say need not be kept for it.
            let bare = Options {
                timestamps: false,
                history,
            };
            let (mut whole, mut listed) = (Vec::new(), Vec::new());
            export(&snapshot, format, &bare, &mut whole).expect("memory");
            let mut listing = reader.list_for(format, &what).expect("an epoch");
            listing.add_labels(&labels);
            export(&listing, format, &bare, &mut listed).expect("memory");
            assert!(whole == listed, "{format}");
        }
    }
}

#[test]
fn what_is_forgotten_while_a_page_is_written_is_not_on_it() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    emit(&bus);
    aggregator.finish();
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let listing = reader.list(&ReadOptions::default()).expect("an epoch");
    for at in 0..40 {
        let labels = [
            ("at", format!("{:02}", at * 7 % 40)),
            ("all", "\"x\"".into()),
        ];
        let level = bus.gauge("level").labels(labels).register();
        level.expect("room").forget();
    }
    aggregator.finish();
    churn(&bus, &mut aggregator);
    let mut page = Vec::new();
    export(&listing, Format::Prometheus, &Options::default(), &mut page).expect("memory");
    let page = String::from_utf8(page).expect("text");
    assert!(!page.contains("churn"), "none has another's words");
    assert!(page.contains("jobs_total{"), "{page}");
}

/// Others take the place of what is freed.
fn churn(bus: &Bus, aggregator: &mut Aggregator) {
    for at in 0..200 {
        let other = bus.gauge("churn").labels([("churn", format!("{at}"))]);
        other.register().expect("room").set(f64::from(at));
        aggregator.finish();
    }
}
