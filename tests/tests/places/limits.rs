//! Limits of a process: each is met by a refusal that names it, never by a signal.

use qbus_tests::until;

use super::{check_refused, host_of_a_name, is_root, skip};

/// Without a descriptor too many there is no lock, so no emit; with them again the process joins.
#[test]
fn few_descriptors_are_enough_and_fewer_are_refused() {
    for limit in 4..16 {
        let (test, mut host) = host_of_a_name(&format!("ulimit -n {limit}; exec \"$@\""));
        let answers = ["create", "emit 3", "aggregate", "finish", "rest", "force"];
        for command in answers {
            let answer = host.ask(command);
            let said = [
                "Too many open files",
                "no bus",
                "no aggregator",
                "there is no ",
            ];
            let is_said = said.iter().any(|word| answer.contains(word));
            assert!(
                !answer.starts_with("refused") || is_said,
                "{limit}: {command}: {answer}"
            );
            assert!(
                !answer.starts_with("refused") || limit < 12,
                "{limit}: {answer}"
            );
        }
        host.end();
        assert!(!test.address().file().exists(), "left with {limit}");
    }
}

#[test]
fn descriptors_that_run_out_later_are_waited_for() {
    let (_test, mut host) = host_of_a_name("ulimit -n 64; exec \"$@\"");
    host.expect("create", "open");
    host.expect("starve", "starving");
    let answer = host.ask("emit 3");
    assert!(answer.starts_with("accepted 0 of 3: "), "{answer}");
    host.expect_refusal("aggregate", &["Too many open files"]);
    host.expect("feed", "fed");
    // It does not ask again with every emit.
    until("it joins", || host.ask("emit 1") == "accepted 1 of 1");
    host.expect("aggregate", "aggregating");
    // Who has joined needs no more of them, also for new threads.
    host.expect("starve", "starving");
    host.expect("emit 3", "accepted 3 of 3");
    host.expect("threads 3", "accepted 3 of 3");
    host.expect("feed", "fed");
    host.expect("finish", "counted 7");
    host.end();
}

/// A file beyond the limit is refused before the kernel would send SIGXFSZ.
#[test]
fn a_limit_of_file_sizes_is_said() {
    // In blocks of 512 bytes: less than the bus, and less than its snapshot.
    let (_test, mut host) = host_of_a_name("ulimit -f 128; exec \"$@\"");
    check_refused(&mut host, &["65536", "ulimit -f"]);
    host.end();
    let (_test, mut host) = host_of_a_name("ulimit -f 1024; exec \"$@\"");
    host.expect("create", "open");
    host.expect("emit 3", "accepted 3 of 3");
    host.expect_refusal("aggregate", &["snapshot", "ulimit -f"]);
    host.expect("emit 3", "accepted 3 of 3");
    host.end();
}

#[test]
fn a_limit_of_address_space_is_said() {
    // The program itself needs some 4 MiB, its thread stacks more.
    let (test, mut host) = host_of_a_name("ulimit -v 24000; exec \"$@\"");
    host.expect_refusal("create 64 65536", &["Cannot allocate memory"]);
    assert!(!test.address().file().exists());
    host.expect("create", "open");
    host.expect("emit 3", "accepted 3 of 3");
    host.expect("force", "removed");
    host.end();
}

/// No more threads: the aggregator does without those that it starts, or says so.
#[test]
fn a_limit_of_processes_harms_nobody() {
    if !is_root("another user, whose processes are counted") {
        return;
    }
    // A user of its own, who has no other processes; root is not limited.
    let folder = super::processes::public_copy(super::HOST);
    let test = qbus_tests::TestBus::reserve(qbus_tests::Place::Named);
    let place = "exec setpriv --reuid 64999 --regid 64999 --clear-groups prlimit --nproc=1 \"$@\"";
    let program = folder.path().join("helper").display().to_string();
    let mut host = qbus_tests::Host::start(&program, test.address(), place);
    host.expect("create", "open");
    host.expect("emit 3", "accepted 3 of 3");
    let answer = host.ask("aggregate");
    if answer == "aggregating" {
        host.expect("finish", "counted 3");
    } else {
        assert!(answer.contains("thread"), "{answer}");
    }
    host.expect("emit 3", "accepted 3 of 3");
    host.expect("rest", "resting");
    host.expect("force", "removed");
    host.end();
}

/// What the kernel kills for want of memory while it makes a bus leaves a name that can be had
/// again.
#[test]
fn a_memory_cgroup_that_is_hit_leaves_no_bus_that_cannot_be_had_again() {
    use std::fs;
    use std::path::Path;
    if !is_root("a cgroup of its own") {
        return;
    }
    let name = format!("qbus-test-{}", std::process::id());
    let (v1, v2) = (
        Path::new("/sys/fs/cgroup/memory"),
        Path::new("/sys/fs/cgroup"),
    );
    let (group, limit) = if v1.is_dir() {
        (v1.join(name), "memory.limit_in_bytes")
    } else {
        (v2.join(name), "memory.max")
    };
    if fs::create_dir(&group).is_err() || fs::write(group.join(limit), "8388608").is_err() {
        let _ = fs::remove_dir(&group);
        skip("no memory cgroup can be made here");
        return;
    }
    let procs = group.join("cgroup.procs");
    let place = format!("echo $$ >{}; exec \"$@\"", procs.display());
    let (test, mut host) = host_of_a_name(&place);
    // 16 MiB in a group of 8: the kernel refuses, or ends the process.
    host.process_mut().tell("create 64 4096");
    let answer = host.process_mut().try_line();
    if let Some(answer) = &answer {
        assert!(answer.starts_with("refused: "), "{answer}");
        host.expect("create", "open");
        host.expect("force", "removed");
    }
    drop(host);
    let _ = fs::remove_dir(&group);
    // Whatever it left does not stand in the way of the next one.
    let mut next = super::host(test.address(), super::HERE);
    until("the name is to be had", || {
        next.ask("create") == "open"
            || next.ask("force") == "removed" && next.ask("create") == "open"
    });
    next.expect("emit 1", "accepted 1 of 1");
    next.end();
}
