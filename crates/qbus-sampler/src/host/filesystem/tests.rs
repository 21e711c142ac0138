use std::fs;
use std::sync::Condvar;

use super::*;
use crate::config::Roots;
use crate::metric::GpuNames;

/// What a source of a mount table says, and a gate that some mounts wait at.
struct Stage {
    dir: tempfile::TempDir,
    source: Filesystems,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

/// Mounts below `/dead` hang until the gate opens; the device of `/other` is another one.
fn stage(table: &[u8]) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("1")).unwrap();
    fs::write(dir.path().join("1/mountinfo"), table).unwrap();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let ask = move |path: &Path| {
        if path.starts_with("/dead") {
            let (open, changed) = &*held;
            let open = open.lock().unwrap();
            drop(changed.wait_while(open, |open| !*open).unwrap());
        }
        let minor = if path == Path::new("/other") { 99 } else { 1 };
        Ok(Space {
            device_number: (8, minor),
            is_btrfs: path == Path::new("/btrfs"),
            size_bytes: path.as_os_str().len() as u64,
            ..Space::default()
        })
    };
    let config = SamplerOptions {
        roots: Roots {
            proc: dir.path().into(),
            ..Roots::default()
        },
        mount_timeout: Duration::from_millis(200),
        ..SamplerOptions::default()
    };
    let source = Filesystems::with(&config, Arc::new(ask));
    Stage { dir, source, gate }
}

impl Stage {
    fn read(&mut self) -> (BTreeMap<String, f64>, Vec<String>) {
        let mut out = Readings::default();
        let tick = Tick {
            now: Instant::now(),
            attached: &[],
        };
        self.source.read(&tick, &mut out).unwrap();
        let things = out.take_trouble().things;
        let mut page = BTreeMap::new();
        out.emit("filesystem", (Names::Qbus, GpuNames::Same), &mut |sample| {
            let mount_point = sample.labels.last().unwrap().1;
            let name = sample
                .metric
                .name
                .trim_start_matches("qbus_host_filesystem_");
            page.insert(format!("{name} {mount_point}"), sample.value);
        });
        let messages = things.into_iter().map(|trouble| trouble.message);
        (page, messages.collect())
    }

    fn open_the_gate(&self) {
        let (open, changed) = &*self.gate;
        *open.lock().unwrap() = true;
        changed.notify_all();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.open_the_gate();
    }
}

fn table(lines: &[(&str, &str)]) -> Vec<u8> {
    let line = |(mount_point, fs_type): &(&str, &str)| {
        format!("1 0 8:1 / {mount_point} rw - {fs_type} /dev/x rw\n")
    };
    lines.iter().map(line).collect::<String>().into_bytes()
}

#[test]
fn mounts_that_hang_delay_no_other_and_recover() {
    let dead: Vec<String> = (0..20).map(|n| format!("/dead/{n}")).collect();
    let mut lines: Vec<(&str, &str)> = dead.iter().map(|point| (point.as_str(), "nfs4")).collect();
    lines.extend([
        ("/", "ext4"),
        ("/proc", "proc"),
        ("/dev/shm", "tmpfs"),
        ("/data", "xfs"),
    ]);
    let mut stage = stage(&table(&lines));
    let (page, said) = stage.read();
    for mount_point in ["/", "/dev/shm", "/data"] {
        let size = page[&format!("size_bytes {mount_point}")];
        assert_eq!(size, mount_point.len() as f64, "{mount_point}");
        assert_eq!(page[&format!("device_error {mount_point}")], 0.0);
    }
    assert!(!page.contains_key("size_bytes /proc"));
    for mount_point in &dead {
        assert_eq!(page[&format!("device_error {mount_point}")], 1.0);
        assert!(!page.contains_key(&format!("size_bytes {mount_point}")));
        assert!(
            said.contains(&format!("{mount_point}: does not answer")),
            "{said:?}"
        );
    }
    // They are not asked again: a second thread each would hang as well.
    let (_, said) = stage.read();
    assert!(
        said.contains(&"/dead/7: still hangs".to_owned()),
        "{said:?}"
    );
    assert_eq!(stage.source.hanging.len(), dead.len());
    stage.open_the_gate();
    while stage.read().0["device_error /dead/7"] == 1.0 {
        thread::yield_now();
    }
}

#[test]
fn more_that_hang_than_there_may_be_threads_leave_the_others_alone() {
    let dead: Vec<String> = (0..HANGING_MAX + 9).map(|n| format!("/dead/{n}")).collect();
    let mut lines: Vec<(&str, &str)> = dead.iter().map(|point| (point.as_str(), "nfs4")).collect();
    lines.extend([("/", "ext4"), ("/data", "xfs")]);
    let mut stage = stage(&table(&lines));
    for _ in 0..2 {
        let (page, _) = stage.read();
        assert_eq!(
            (page["device_error /"], page["device_error /data"]),
            (0.0, 0.0)
        );
        assert_eq!(page["size_bytes /data"], 5.0);
    }
    assert!(stage.source.hanging.len() <= HANGING_MAX + 1);
}

#[test]
fn an_answer_of_another_file_system_is_not_believed() {
    let mut stage = stage(&table(&[
        ("/", "ext4"),
        ("/other", "ext4"),
        ("/btrfs", "btrfs"),
    ]));
    let (page, said) = stage.read();
    assert_eq!(page["device_error /other"], 1.0);
    assert!(!page.contains_key("size_bytes /other"), "{page:?}");
    assert!(
        said[0].contains("device 8:99, expected the one on 8:1"),
        "{said:?}"
    );
    // A subvolume of btrfs says a device of its own.
    assert_eq!(page["size_bytes /btrfs"], 6.0);
}

#[test]
fn a_mount_that_is_gone_is_gone_from_the_page() {
    let mut stage = stage(&table(&[("/", "ext4"), ("/data", "xfs")]));
    assert!(stage.read().0.contains_key("size_bytes /data"));
    let path = stage.dir.path().join("1/mountinfo");
    fs::write(path, table(&[("/", "ext4")])).unwrap();
    let (page, said) = stage.read();
    assert!(!page.keys().any(|key| key.ends_with("/data")), "{page:?}");
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn the_last_mount_at_a_place_is_the_one_that_is_seen() {
    let mut stage = stage(&table(&[
        ("/data", "xfs"),
        ("/", "ext4"),
        ("/data", "tmpfs"),
    ]));
    let (page, _) = stage.read();
    assert_eq!(
        page.keys().filter(|key| *key == "size_bytes /data").count(),
        1
    );
}
