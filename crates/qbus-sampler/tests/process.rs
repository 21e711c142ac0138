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

#[test]
fn a_busy_loop_and_open_files_show() {
    let mut sampler = sampler(&[Source::Process], |_| {});
    let now = Instant::now();
    let busy = |page: &crate::support::Page| {
        let mode = |mode: &str| {
            let key = page.samples.keys().find(|key| {
                key.starts_with("qbus_process_cpu_seconds_total") && key.ends_with(mode)
            });
            page.samples[key.unwrap()]
        };
        mode("mode=\"user\"}") + mode("mode=\"system\"}")
    };
    let first = tick(&mut sampler, now, &[]);
    crate::host::burn(0.5);
    let open: Vec<_> = (0..200)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .collect();
    let page = tick(&mut sampler, Instant::now(), &[]);
    // Other tests of this process use CPU and files, too.
    let elapsed = now.elapsed().as_secs_f64();
    assert_between(0.5, busy(&page) - busy(&first), elapsed * 64.0, 0.03);
    assert!(own(&page, "qbus_process_cpu_usage_ratio") >= 0.4 / elapsed);
    assert!(own(&page, "qbus_process_open_fds") >= 200.0);
    assert!(own(&page, "qbus_process_max_fds") >= 200.0);
    drop(open);
}

#[test]
fn input_and_output_lie_between_two_readings_of_proc() {
    let read = |key: &str| {
        let text = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.trim().parse::<f64>().unwrap()
    };
    let before = [read("read_bytes:"), read("write_bytes:")];
    let page = tick(
        &mut sampler(&[Source::Process], |_| {}),
        Instant::now(),
        &[],
    );
    let after = [read("read_bytes:"), read("write_bytes:")];
    let names = [
        "qbus_process_read_bytes_total",
        "qbus_process_written_bytes_total",
    ];
    for (at, name) in names.into_iter().enumerate() {
        assert_between(before[at], own(&page, name), after[at], 0.0);
    }
}

/// Writes what the kernel would say of a process, with so many ticks of CPU time.
fn fixture(proc: &std::path::Path, pid: u32, command: &str, ticks: u32, started: u64) {
    let stat = format!(
        "{pid} ({command}) S 1 1 1 0 -1 0 10 0 2 0 {ticks} 50 0 0 20 0 3 0 {started} 8192 4\n"
    );
    let status = "VmSwap:\t     12 kB\n".to_owned();
    let task = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n";
    let directory = format!("{pid}");
    crate::support::write_tree(
        proc,
        &[
            (format!("{directory}/stat"), &*stat),
            (format!("{directory}/status"), &*status),
            (format!("{directory}/task/{pid}/status"), task),
            (format!("{directory}/task/999/status"), task),
        ],
    );
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut sampler = sampler(&[Source::Process], |config| {
        config.own_role = None;
        config.roots.proc = dir.path().into();
    });
    let attached = |started, role: &str| Attached {
        pid: 7,
        started,
        role: role.into(),
        ..Attached::default()
    };
    let now = Instant::now();
    let at = |second| now + Duration::from_secs(second);
    fixture(dir.path(), 7, "work er", 100, 5000);
    let labels = r#"role="w",command="work er""#;
    let user = format!("qbus_process_cpu_seconds_total{{{labels},mode=\"user\"}}");
    let page = tick(&mut sampler, at(0), &[attached(Some(5000), "w")]);
    assert_eq!(page.value(&user), 1.0);
    assert_eq!(
        page.value(&format!("qbus_process_swap_bytes{{{labels}}}")),
        12_288.0
    );
    let switches = format!("qbus_process_context_switches_total{{{labels},kind=\"voluntary\"}}");
    assert_eq!(page.value(&switches), 10.0, "of both threads");
    fixture(dir.path(), 7, "work er", 300, 5000);
    let page = tick(&mut sampler, at(2), &[attached(Some(5000), "w")]);
    assert_eq!(
        page.value(&format!("qbus_process_cpu_usage_ratio{{{labels}}}")),
        1.0
    );
    // Another process has the pid; the owner that was attached is gone.
    fixture(dir.path(), 7, "work er", 10, 9000);
    let page = tick(&mut sampler, at(3), &[attached(Some(5000), "w")]);
    assert_eq!(
        (page.value(&user), page.outcome("process").skipped),
        (3.0, 1)
    );
    // Now that one attaches: the series goes on.
    let page = tick(&mut sampler, at(4), &[attached(Some(9000), "w")]);
    assert!((page.value(&user) - 3.1).abs() < 1e-9);
    // A role that is set late is another series from then on.
    let page = tick(&mut sampler, at(5), &[attached(Some(9000), "trainer")]);
    let instances = |role| format!("qbus_process_instances{{role={role:?},command=\"work er\"}}");
    assert_eq!(
        (
            page.value(&instances("trainer")),
            page.value(&instances("w"))
        ),
        (1.0, 0.0)
    );
    assert!((page.value(&user) - 3.1).abs() < 1e-9);
}
