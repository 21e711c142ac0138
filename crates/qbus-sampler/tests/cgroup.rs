//! Control groups: fixture trees, since the machine at hand may have none with controllers.

use std::path::Path;
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, SamplerOptions, Source};

use crate::support::{Page, sampler, tick, write_tree};

const SLICE: &str = "sys/fs/cgroup/work.slice";
const JOB: &str = "sys/fs/cgroup/work.slice/job.service";

fn mounts(root: &str) -> String {
    format!(
        "22 27 0:21 / /proc rw - proc proc rw\n\
         41 31 0:38 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    )
}

/// Two processes in a job that has limits of its own, in a slice that has tighter ones.
fn tree(root: &Path) {
    let job = |file: &str| format!("{JOB}/{file}");
    let slice = |file: &str| format!("{SLICE}/{file}");
    let files: &[(String, &str)] = &[
        ("proc/self/mountinfo".into(), &mounts("/")),
        (
            "proc/self/cgroup".into(),
            "1:name=systemd:/elsewhere\n0::/work.slice/job.service\n",
        ),
        ("proc/7/cgroup".into(), "0::/work.slice/job.service\n"),
        ("proc/8/cgroup".into(), "0::/../host.service\n"),
        (job("memory.current"), "1048576\n"),
        (job("memory.peak"), "2097152\n"),
        (job("memory.max"), "8589934592\n"),
        (job("memory.high"), "max\n"),
        (job("memory.swap.current"), "4096\n"),
        (
            job("memory.stat"),
            "anon 500000\nfile 400000\ninactive_file 48576\npgfault 9\n",
        ),
        (
            job("memory.events"),
            "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
        ),
        (
            job("cpu.stat"),
            "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_periods 10\n\
             nr_throttled 4\nthrottled_usec 250000\n",
        ),
        (job("cpu.max"), "max 100000\n"),
        (
            job("io.stat"),
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n9:9 rbytes=7\n",
        ),
        (job("pids.current"), "12\n"),
        (job("pids.max"), "max\n"),
        (
            job("cpu.pressure"),
            "some avg10=0 total=1500000\nfull avg10=0 total=500000\n",
        ),
        (slice("memory.max"), "4294967296\n"),
        (slice("cpu.max"), "150000 100000\n"),
    ];
    write_tree(root, files);
    std::fs::create_dir_all(root.join("sys/dev/block")).unwrap();
    std::os::unix::fs::symlink("../../devices/x/block/sda", root.join("sys/dev/block/8:0"))
        .unwrap();
}

fn roots(root: &Path) -> impl FnOnce(&mut SamplerOptions) {
    let (proc, sys) = (root.join("proc"), root.join("sys"));
    |config| {
        config.roots.proc = proc;
        config.roots.sys = sys;
    }
}

fn check(page: &Page, cgroup: &str) {
    let value = |name: &str, more: &str| {
        page.value(&format!("qbus_cgroup_{name}{{cgroup={cgroup:?}{more}}}"))
    };
    assert_eq!(value("memory_usage_bytes", ""), 1_048_576.0);
    assert_eq!(value("memory_working_set_bytes", ""), 1e6);
    assert_eq!(value("memory_peak_bytes", ""), 2_097_152.0);
    assert_eq!(value("memory_anon_bytes", ""), 500_000.0);
    assert_eq!(value("memory_events_total", ",event=\"oom_kill\""), 4.0);
    assert_eq!(value("swap_usage_bytes", ""), 4096.0);
    assert_eq!(value("cpu_seconds_total", ",mode=\"user\""), 2.0);
    assert_eq!(value("cpu_periods_total", ""), 10.0);
    assert_eq!(value("cpu_throttled_periods_total", ""), 4.0);
    assert_eq!(value("cpu_throttled_seconds_total", ""), 0.25);
    assert_eq!(value("io_read_bytes_total", ",device=\"sda\""), 1.0);
    assert_eq!(value("io_discards_total", ",device=\"sda\""), 6.0);
    assert_eq!(value("io_read_bytes_total", ",device=\"9:9\""), 7.0);
    assert_eq!(value("pids", ""), 12.0);
    assert_eq!(value("pressure_cpu_stalled_seconds_total", ""), 0.5);
    for unlimited in ["memory_high_bytes", "pids_limit"] {
        let name = format!("qbus_cgroup_{unlimited}");
        assert!(
            !page.samples.keys().any(|key| key.starts_with(&name)),
            "{name}"
        );
    }
}

#[test]
fn the_tightest_limit_on_the_way_up_holds() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut sampler = sampler(&[Source::Cgroup], roots(dir.path()));
    let attached = |pid| Attached {
        pid,
        ..Attached::default()
    };
    let page = tick(
        &mut sampler,
        Instant::now(),
        &[attached(7), attached(8), attached(9)],
    );
    check(&page, "/work.slice/job.service");
    let labels = "{cgroup=\"/work.slice/job.service\"}";
    assert_eq!(
        page.value(&format!("qbus_cgroup_memory_limit_bytes{labels}")),
        4_294_967_296.0
    );
    assert_eq!(
        page.value(&format!("qbus_cgroup_cpu_limit_cpus{labels}")),
        1.5
    );
    assert_eq!(
        page.value(&format!("qbus_cgroup_attached_processes{labels}")),
        2.0
    );
    // One is outside of what this container sees, one is gone.
    let outcome = page.outcome("cgroup");
    assert_eq!((outcome.skipped, outcome.failures), (2, 0));
}

#[test]
fn a_container_sees_its_part_of_the_hierarchy() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    // The job alone is mounted, without a cgroup namespace: paths are still those of the host.
    let job = dir.path().join(JOB);
    let below = dir.path().join("container/sys/fs/cgroup");
    std::fs::create_dir_all(below.parent().unwrap()).unwrap();
    std::fs::rename(job, &below).unwrap();
    write_tree(
        dir.path(),
        &[(
            "proc/self/mountinfo".to_owned(),
            &mounts("/work.slice/job.service"),
        )],
    );
    let mut sampler = sampler(&[Source::Cgroup], |config| {
        config.roots.proc = dir.path().join("proc");
        config.roots.sys = dir.path().join("container/sys");
    });
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[]);
    let limit = "qbus_cgroup_memory_limit_bytes{cgroup=\"/work.slice/job.service\"}";
    assert_eq!(page.value(limit), 8_589_934_592.0);
    // A limit that is changed is seen, if not in the next tick.
    std::fs::write(below.join("memory.max"), "max\n").unwrap();
    let page = tick(&mut sampler, now + Duration::from_secs(6), &[]);
    assert!(!page.has(limit));
}

#[test]
fn a_machine_without_version_2_is_a_normal_machine() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[(
            "proc/self/mountinfo".to_owned(),
            "22 27 0:21 / /proc rw - proc proc rw\n",
        )],
    );
    let mut sampler = sampler(&[Source::Cgroup], roots(dir.path()));
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert_eq!(
        (page.samples.len(), page.outcome("cgroup").failures),
        (0, 0)
    );
    let news = qbus_sampler::News::Absent("cgroup2 is not mounted".into());
    assert_eq!(page.outcome("cgroup").news, [news]);
}

#[test]
fn version_1_is_said_to_be_unread_and_the_root_is_no_group() {
    let dir = tempfile::tempdir().unwrap();
    let line = |kind: &str, at: &str| format!("41 31 0:38 / {at} rw - {kind} {kind} rw\n");
    let old =
        line("cgroup", "/sys/fs/cgroup/cpu,cpuacct") + &line("cgroup", "/sys/fs/cgroup/memory");
    for table in [
        old.clone(),
        old + &line("cgroup2", "/sys/fs/cgroup/unified"),
    ] {
        write_tree(
            dir.path(),
            &[
                ("proc/self/mountinfo", &*table),
                ("proc/self/cgroup", "4:memory:/job\n0::/\n"),
                (
                    "sys/fs/cgroup/unified/cpu.stat",
                    "usage_usec 5\nuser_usec 5\n",
                ),
            ],
        );
        let mut sampler = sampler(&[Source::Cgroup], roots(dir.path()));
        let page = tick(&mut sampler, Instant::now(), &[]);
        assert_eq!(page.samples.len(), 0, "{page:#?}");
        let [qbus_sampler::News::Absent(said)] = &page.outcome("cgroup").news[..] else {
            panic!("{page:#?}");
        };
        assert!(
            said.contains("cpu,cpuacct and memory are of version 1"),
            "{said}"
        );
    }
    // Version 2 alone, and the sampler in its root: that is the machine.
    write_tree(
        dir.path(),
        &[
            ("proc/self/mountinfo", &*line("cgroup2", "/sys/fs/cgroup")),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 5\nuser_usec 5\n"),
        ],
    );
    let mut sampler = self::sampler(&[Source::Cgroup], roots(dir.path()));
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert_eq!((page.samples.len(), page.outcome("cgroup").skipped), (0, 1));
    // In a container the same path is its own group.
    write_tree(
        dir.path(),
        &[("sys/fs/cgroup/cgroup.events", "populated 1\n")],
    );
    let mut sampler = self::sampler(&[Source::Cgroup], roots(dir.path()));
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert!(
        page.has(r#"qbus_cgroup_cpu_seconds_total{cgroup="/",mode="user"}"#),
        "{page:#?}"
    );
}

/// On the machine itself, whatever it has.
#[test]
fn own_group_is_read_where_there_is_one() {
    let page = tick(&mut sampler(&[Source::Cgroup], |_| {}), Instant::now(), &[]);
    assert_eq!(page.outcome("cgroup").failures, 0, "{page:#?}");
}
