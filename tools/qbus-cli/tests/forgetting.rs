//! `qbus forget`: series leave the page, and come back.

use qbus_tests::{Place, TestBus, until};

use crate::support::{aggregate, aggregator, fails, qbus, stop, well};

#[test]
fn what_is_forgotten_is_off_the_page_until_it_is_emitted_again() {
    let bus = TestBus::small(Place::Named);
    for link in ["eth0", "eth1", "veth7"] {
        let label = format!("link={link}");
        well(&bus, &format!("emit link_up 1 --label {label}"));
    }
    well(&bus, "emit jobs_total 2 --type counter");
    let running = aggregator(&bus, "");

    let dry = well(&bus, "forget 'link_*' --label link=veth7 --dry-run");
    assert_eq!(
        dry,
        "link_up{link=\"veth7\"}\n1 series would be forgotten\n"
    );
    // It was emitted before anybody aggregated: the first commit need not have all of it.
    until("all of it on the page", || {
        let page = well(&bus, "dump");
        page.contains("veth7") && page.contains("jobs_total 2")
    });

    let said = well(&bus, "forget 'link_*' --label link=veth7");
    assert_eq!(said, "forgot 1 series\n");
    // It is gone when the command ends, in every format.
    for format in ["prometheus", "openmetrics", "json", "csv"] {
        let page = well(&bus, &format!("dump -f {format}"));
        assert!(!page.contains("veth7") && page.contains("eth1"), "{page}");
    }
    assert_eq!(well(&bus, "forget 'nothing*'"), "forgot 0 series\n");
    assert_eq!(well(&bus, "forget '*'"), "forgot 3 series\n");
    assert_eq!(well(&bus, "dump"), "");

    // A counter goes on from where it stood.
    well(&bus, "emit jobs_total 3 --type counter");
    assert!(well(&bus, "dump").ends_with("\njobs_total 5\n"));
    stop(running);
}

#[test]
fn the_next_aggregator_takes_off_what_was_forgotten_without_one() {
    let bus = TestBus::small(Place::Path);
    for level in ["a", "b"] {
        well(&bus, &format!("emit {level} 1"));
    }
    aggregate(&bus);
    let finished = qbus(&bus, "forget a");
    assert_eq!(
        (finished.code, &*finished.out),
        (Some(0), "forgot 1 series\n")
    );
    let said = "they are still on the page: no aggregator runs; the next one takes them off";
    assert!(finished.err.contains(said), "{}", finished.err);
    assert!(well(&bus, "dump").contains("\na 1\n"));
    aggregate(&bus);
    let page = well(&bus, "dump");
    assert!(!page.contains("a 1\n") && page.contains("b 1\n"), "{page}");
}

#[test]
fn a_bus_that_is_not_there_is_said_to_be_absent() {
    let bus = TestBus::small(Place::Named);
    well(&bus, "rm");
    fails(&bus, "forget '*'", 1, &["there is no bus"]);
}
