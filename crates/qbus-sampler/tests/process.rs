//! Process values against `/proc`, `ps` and what the test does itself.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, Source};

use crate::support::{assert_between, sampler, tick};

const OWN: &str = r#"{role="aggregator",command="all-"#;

/// The series of this process, whatever the kernel calls it.
fn own(page: &crate::support::Page, name: &str) -> f64 {
    let prefix = format!("{name}{}", &OWN[..OWN.len() - 4]);
    let found: Vec<_> = page
        .samples
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .collect();
    assert_eq!(found.len(), 1, "{prefix} in {:?}", page.samples);
    *found[0].1
}

#[test]
fn an_allocation_shows_in_resident_memory() {
    let mut sampler = sampler(&[Source::Process], |_| {});
    let now = Instant::now();
    let before = own(
        &tick(&mut sampler, now, &[]),
        "qbus_process_resident_memory_bytes",
    );
    let megabytes = 64;
    let block = black_box(vec![1_u8; megabytes << 20]);
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    let after = own(&page, "qbus_process_resident_memory_bytes");
    let grown = after - before;
    assert_between(
        (megabytes << 20) as f64,
        grown,
        (megabytes << 20) as f64,
        16e6,
    );
    assert!(own(&page, "qbus_process_virtual_memory_bytes") > after);
    assert!(own(&page, "qbus_process_threads") >= 2.0);
    drop(block);
}

#[test]
fn values_are_those_of_ps() {
    let pid = std::process::id().to_string();
    let ps = Command::new("ps")
        .args(["-o", "rss=,vsz=,nlwp=,lstart=", "-p", &pid])
        .output();
    let Ok(ps) = ps else { return };
    let text = String::from_utf8(ps.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let page = tick(
        &mut sampler(&[Source::Process], |_| {}),
        Instant::now(),
        &[],
    );
    let number = |word: &str| word.parse::<f64>().unwrap();
    let resident = own(&page, "qbus_process_resident_memory_bytes");
    assert_between(
        number(words[0]) * 1024.0,
        resident,
        number(words[0]) * 1024.0,
        100e6,
    );
    let virtual_bytes = own(&page, "qbus_process_virtual_memory_bytes");
    assert_between(
        number(words[1]) * 1024.0,
        virtual_bytes,
        number(words[1]) * 1024.0,
        1e9,
    );
    assert!(own(&page, "qbus_process_open_fds") >= 3.0);
}

#[test]
fn processes_of_one_role_are_one_series_that_never_falls() {
    let start = || Command::new("sleep").arg("600").spawn().unwrap();
    let (mut one, mut two) = (start(), start());
    let attached = |pid: u32| Attached {
        pid,
        role: "sleeper".into(),
        ..Attached::default()
    };
    let both = [attached(one.id()), attached(two.id())];
    let mut sampler = sampler(&[Source::Process], |config| config.own_role = None);
    let now = Instant::now();
    let labels = r#"{role="sleeper",command="sleep""#;
    let faults = format!("qbus_process_page_faults_total{labels},kind=\"minor\"}}");
    let instances = format!("qbus_process_instances{labels}}}");
    // The command is `sleep` only once it has been executed.
    while [&one, &two].iter().any(|child| {
        std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n"
    }) {
        std::thread::yield_now();
    }
    let page = tick(&mut sampler, now, &both);
    assert_eq!(page.value(&instances), 2.0);
    let counted = page.value(&faults);
    one.kill().unwrap();
    one.wait().unwrap();
    let page = tick(&mut sampler, now + Duration::from_secs(1), &both);
    assert_eq!(page.value(&instances), 1.0);
    assert_eq!(page.outcome("process").skipped, 1);
    assert!(page.value(&faults) >= counted);
    two.kill().unwrap();
    two.wait().unwrap();
    let page = tick(&mut sampler, now + Duration::from_secs(2), &[]);
    assert_eq!(page.value(&instances), 0.0);
    assert!(page.value(&faults) >= counted);
    assert!(
        !page.has(&format!("qbus_process_threads{labels}}}")),
        "no process, no threads"
    );
}

#[test]
fn a_process_of_another_pid_namespace_is_skipped_and_counted() {
    let mut sampler = sampler(&[Source::Process], |config| config.own_role = None);
    let foreign = Attached {
        pid: std::process::id(),
        role: "container".into(),
        pid_namespace: Some(1),
        ..Attached::default()
    };
    let page = tick(&mut sampler, Instant::now(), &[foreign]);
    assert!(page.samples.is_empty(), "{:?}", page.samples);
    let outcome = page.outcome("process");
    assert_eq!((outcome.skipped, outcome.failures), (1, 0));
}
