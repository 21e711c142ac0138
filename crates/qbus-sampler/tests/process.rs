//! Process values against `/proc`, `ps` and what the test does itself.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, Source};

use crate::support::{Running, assert_between, sampler, tick};

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

/// Not a test: what `an_allocation_shows_in_resident_memory` starts as a process of its own. It
/// says when it is ready, and allocates when it is told to.
#[test]
#[ignore = "runs as a child of another test"]
fn child_that_allocates() {
    let Ok(size) = std::env::var("CHILD_ALLOCATES") else {
        return;
    };
    let say = |word: &str| {
        let mut out = std::io::stdout();
        out.write_all(format!("\n{word}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let mut lines = std::io::stdin().lines();
    say("ready");
    lines.next();
    let block = black_box(vec![1_u8; size.parse().unwrap()]);
    say("allocated");
    lines.next();
    drop(block);
}

#[test]
fn an_allocation_shows_in_resident_memory() {
    let size: u32 = 128 << 20;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "process::child_that_allocates",
        ])
        .env("CHILD_ALLOCATES", size.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait_for = |word: &str| said.find(|line| line.as_ref().unwrap() == word).unwrap();
    let attached = Attached {
        pid: child.id(),
        role: "child".into(),
        command: "allocates".into(),
        ..Attached::default()
    };
    let mut sampler = sampler(&[Source::Process], |_| {});
    let now = Instant::now();
    wait_for("ready").unwrap();
    let series = "qbus_process_resident_memory_bytes{role=\"child\",command=\"allocates\"}";
    let before = tick(&mut sampler, now, std::slice::from_ref(&attached)).value(series);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    wait_for("allocated").unwrap();
    let after = tick(&mut sampler, now + Duration::from_secs(1), &[attached]).value(series);
    drop(stdin);
    child.wait().unwrap();
    assert_between(f64::from(size), after - before, f64::from(size), 2e6);
}

#[test]
fn values_are_those_of_ps() {
    let child = sleep();
    let pid = child.0.id().to_string();
    let ps = Command::new("ps")
        .args(["-o", "rss=,vsz=,nlwp=,comm=", "-p", &pid])
        .output();
    let attached = Attached {
        pid: child.0.id(),
        role: "nap".into(),
        ..Attached::default()
    };
    let page = tick(
        &mut sampler(&[Source::Process], |_| {}),
        Instant::now(),
        &[attached],
    );
    let Ok(ps) = ps else { return };
    let text = String::from_utf8(ps.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let value = |name| {
        page.value(&format!(
            "qbus_process_{name}{{role=\"nap\",command=\"sleep\"}}"
        ))
    };
    let number = |word: usize| words[word].parse::<f64>().unwrap();
    // The kernel counts pages by CPU and adds them up now and then.
    let resident = value("resident_memory_bytes");
    assert_between(number(0) * 1024.0, resident, number(0) * 1024.0, 1e6);
    assert_eq!(value("virtual_memory_bytes"), number(1) * 1024.0);
    assert_eq!((value("threads"), words[3]), (number(2), "sleep"));
    let since_epoch = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs_f64();
    assert_between(
        since_epoch - 60.0,
        value("start_time_seconds"),
        since_epoch,
        5.0,
    );
}

/// A process that does nothing, under its own name: a child bears its parent's until it has
/// executed its program.
fn sleep() -> Running {
    let child = Running(Command::new("sleep").arg("600").spawn().unwrap());
    let comm = format!("/proc/{}/comm", child.0.id());
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    child
}

#[test]
fn processes_of_one_role_are_one_series_that_never_falls() {
    let (one, two) = (sleep(), sleep());
    let attached = |pid: u32| Attached {
        pid,
        role: "sleeper".into(),
        ..Attached::default()
    };
    let both = [attached(one.0.id()), attached(two.0.id())];
    let mut sampler = sampler(&[Source::Process], |config| config.own_role = None);
    let now = Instant::now();
    let labels = r#"{role="sleeper",command="sleep""#;
    let faults = format!("qbus_process_page_faults_total{labels},kind=\"minor\"}}");
    let instances = format!("qbus_process_instances{labels}}}");
    let page = tick(&mut sampler, now, &both);
    assert_eq!(page.value(&instances), 2.0);
    let counted = page.value(&faults);
    drop(one);
    let page = tick(&mut sampler, now + Duration::from_secs(1), &both);
    assert_eq!(page.value(&instances), 1.0);
    assert_eq!(page.outcome("process").skipped, 1);
    assert!(page.value(&faults) >= counted);
    drop(two);
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

#[test]
fn pids_are_a_label_on_request_and_go_with_their_process() {
    let dir = tempfile::tempdir().unwrap();
    fixture(dir.path(), 7, "a", 100, 5000);
    fixture(dir.path(), 8, "a", 200, 6000);
    let mut sampler = sampler(&[Source::Process], |config| {
        config.own_role = None;
        config.pid_label = true;
        config.roots.proc = dir.path().into();
    });
    let attached = |pid| Attached {
        pid,
        role: "w".into(),
        ..Attached::default()
    };
    let user = |pid| {
        format!(
            "qbus_process_cpu_seconds_total{{role=\"w\",command=\"a\",pid=\"{pid}\",mode=\"user\"}}"
        )
    };
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[attached(7), attached(8)]);
    assert_eq!((page.value(&user(7)), page.value(&user(8))), (1.0, 2.0));
    // One leaves the bus and lives on, then ends.
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[attached(8)]);
    assert_eq!((page.value(&user(7)), page.value(&user(8))), (1.0, 2.0));
    std::fs::remove_dir_all(dir.path().join("7")).unwrap();
    let page = tick(&mut sampler, now + Duration::from_secs(2), &[attached(8)]);
    assert!(!page.has(&user(7)) && page.has(&user(8)));
}

/// Prometheus takes a counter that falls for a restart, and counts all of it again: also where it
/// falls by the last digit, since sums of fractions depend on their order.
#[test]
fn no_end_of_a_process_lowers_what_its_role_has_used() {
    let dir = tempfile::tempdir().unwrap();
    let ticks = [7, 11, 13, 29, 31, 57, 113, 1009, 4001, 33];
    let pids = 10..20;
    for (pid, ticks) in pids.clone().zip(ticks) {
        fixture(dir.path(), pid, "a", ticks, 5000);
    }
    let mut sampler = sampler(&[Source::Process], |config| {
        config.own_role = None;
        config.roots.proc = dir.path().into();
    });
    let attached: Vec<_> = pids
        .clone()
        .map(|pid| Attached {
            pid,
            role: "w".into(),
            ..Attached::default()
        })
        .collect();
    let now = Instant::now();
    let used = |page: &crate::support::Page| {
        let labels = r#"role="w",command="a",mode="user""#;
        page.value(&format!("qbus_process_cpu_seconds_total{{{labels}}}"))
    };
    let sum = f64::from(ticks.iter().sum::<u32>()) / 100.0;
    assert_eq!(used(&tick(&mut sampler, now, &attached)), sum);
    for (gone, pid) in pids.enumerate() {
        std::fs::remove_dir_all(dir.path().join(pid.to_string())).unwrap();
        let later = now + Duration::from_secs(1 + gone as u64);
        let page = tick(&mut sampler, later, &attached[gone + 1..]);
        assert_eq!(used(&page), sum, "after {} ended", gone + 1);
    }
}
