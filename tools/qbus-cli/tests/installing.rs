//! What a package has beside the command: the manual, completions, the service.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use qbus_tests::{Place, TestBus};

use crate::support::{QBUS, aggregator, fails, stop, well};

/// Runs a program that a machine need not have; nothing where it has not, which is said.
fn with(program: &str, args: &[&str]) -> Option<(bool, String)> {
    let Ok(output) = Command::new(program).args(args).env_remove("QBUS").output() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED, it needs {program}");
        return None;
    };
    let told = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    ))
}

/// The commands that `--help` lists.
fn commands(bus: &TestBus) -> Vec<String> {
    let help = well(bus, "--help");
    let listed = help
        .split("Commands:\n")
        .nth(1)
        .expect("a list of commands");
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_command_has_a_page_of_the_manual() {
    let bus = TestBus::small(Place::Named);
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("share/man/man1");
    well(&bus, &format!("man {}", pages.to_str().expect("a path")));
    let commands = commands(&bus);
    assert!(commands.len() > 12, "{commands:?}");
    for command in &commands {
        let page = fs::read_to_string(pages.join(format!("qbus-{command}.1"))).expect("a page");
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains(".SH DESCRIPTION"),
            "{page}"
        );
        // What the environment had when it was made is nobody else's.
        assert!(!page.contains(&bus.address().to_string()), "{page}");
    }
    assert_eq!(
        fs::read_dir(&pages).expect("a folder").count(),
        commands.len() + 1
    );
    if let Some((_, told)) = with(
        "man",
        &["-l", pages.join("qbus-agg.1").to_str().expect("a path")],
    ) {
        assert!(told.contains("--names"), "{told}");
    }
    fails(&bus, "man /proc/none", 2, &["could not make /proc/none"]);
}

#[test]
fn shells_complete_commands_and_values() {
    let bus = TestBus::small(Place::Named);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |shell: &str| {
        let path = folder.path().join(shell);
        let script = well(&bus, &format!("completions {shell}"));
        assert!(!script.contains(&bus.address().to_string()));
        fs::write(&path, script).expect("a script");
        path.to_str().expect("a path").to_owned()
    };
    let complete = format!(
        "source {}; COMP_WORDS=(qbus du); COMP_CWORD=1; _qbus qbus du qbus; \
         echo \"${{COMPREPLY[@]}}\"; \
         COMP_WORDS=(qbus top --view ''); COMP_CWORD=3; _qbus qbus '' --view; \
         echo \"${{COMPREPLY[@]}}\"",
        file("bash")
    );
    if let Some((_, told)) = with("bash", &["-c", &complete]) {
        assert_eq!(told, "dump\nmetrics workers machine bus\n");
    }
    let complete = format!(
        "source {}; complete -C 'qbus du'; complete -C 'qbus top --view '",
        file("fish")
    );
    if let Some((_, told)) = with("fish", &["--no-config", "-c", &complete]) {
        assert!(
            told.starts_with("dump\t") && told.contains("workers\t"),
            "{told}"
        );
    }
    if let Some((is_good, told)) = with("zsh", &["-n", &file("zsh")]) {
        assert!(is_good, "{told}");
    }
    fails(&bus, "completions csh", 2, &["bash", "zsh", "fish"]);
}

#[test]
fn the_service_is_sound_and_confined() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/systemd/qbus.service");
    let text = fs::read_to_string(&unit).expect("the unit");
    // One made for each start has the memory of the bus removed when it stops.
    assert!(!text.lines().any(|line| line.starts_with("DynamicUser")));
    // Each argument is one that the command has.
    let started = text
        .lines()
        .filter_map(|line| line.split_once("=/usr/bin/qbus "))
        .map(|(_, args)| args);
    let bus = TestBus::small(Place::Named);
    let mut count = 0;
    for args in started {
        let help = well(
            &bus,
            &format!("{} --help", args.split(' ').next().expect("a command")),
        );
        for arg in args.split(' ').filter(|arg| arg.starts_with("--")) {
            assert!(help.contains(arg), "{arg} in\n{help}");
        }
        count += 1;
    }
    assert_eq!(count, 2);
    // It says at the place of the command that is not installed what else is wrong.
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().join("qbus.service");
    let local: String = text
        .replace("/usr/bin/qbus", QBUS)
        .lines()
        .filter(|line| !line.starts_with("Documentation"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&here, local).expect("a unit");
    let here = here.to_str().expect("a path");
    if let Some((is_good, told)) = with("systemd-analyze", &["verify", here]) {
        assert!(is_good && !told.contains("qbus.service"), "{told}");
    }
    // What remains is what it is for: the network, /proc, GPUs, the clock.
    if let Some((is_good, told)) = with(
        "systemd-analyze",
        &["security", "--offline=yes", "--threshold=25", here],
    ) {
        assert!(is_good, "{told}");
    }
}

#[test]
fn a_bus_that_is_there_is_left_as_it_is() {
    let bus = TestBus::small(Place::Named);
    let running = aggregator(&bus, "");
    well(&bus, "emit jobs_total 3 --type counter");
    assert_eq!(well(&bus, "create --if-absent --lanes 2"), "");
    assert!(well(&bus, "dump").ends_with("jobs_total 3\n"));
    stop(running);
    well(&bus, "rm");
    assert!(well(&bus, "create --if-absent --mode 0660").contains("created the bus"));
    fails(&bus, "create", 2, &["exists"]);
}
