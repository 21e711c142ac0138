//! Arrays of disks in software, as `/proc/mdstat` has them.

use crate::node_metric::Catalog;
use crate::probe::Failure;
use crate::readings::Readings;

/// States that an array can be in; exactly one of them is 1.
const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];

/// One array.
#[derive(Debug, Default, PartialEq)]
struct Array<'a> {
    name: &'a str,
    state: &'a str,
    failed: u64,
    spare: u64,
    active: u64,
    required: u64,
    blocks: u64,
    synced: u64,
}

/// Reads `/proc/mdstat`.
pub(crate) fn parse(text: &str, catalog: &mut Catalog, out: &mut Readings) -> Result<(), Failure> {
    let lines: Vec<&str> = text.lines().collect();
    for (place, line) in lines.iter().enumerate() {
        if !line.starts_with("md") {
            continue;
        }
        match Array::parse(line, &lines[place + 1..]) {
            Some(array) => push(&array, catalog, out),
            None => out.fail(|| format!("can't read the array `{line}` in mdstat")),
        }
    }
    Ok(())
}

impl<'a> Array<'a> {
    /// A head such as `md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]`, and what stands below it.
    fn parse(head: &'a str, below: &[&str]) -> Option<Array<'a>> {
        let (name, rest) = head.split_once(" : ")?;
        let mut words = rest.split_ascii_whitespace();
        let mut array = Array {
            name: name.trim(),
            state: words.next()?,
            ..Array::default()
        };
        let disks: Vec<&str> = words.filter(|word| word.contains('[')).collect();
        let marked = |mark| disks.iter().filter(|disk| disk.ends_with(mark)).count() as u64;
        array.failed = marked("(F)");
        array.spare = marked("(S)");
        let mut below = below.iter().take_while(|line| line.starts_with(' '));
        let sizes = below.next()?;
        array.blocks = sizes.split_ascii_whitespace().next()?.parse().ok()?;
        // `[8/7]`: how many there should be, and how many there are. Some kinds need all they have.
        let counts = sizes.split_ascii_whitespace().find_map(|word| {
            let (required, active) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
            Some((required.parse::<u64>().ok()?, active.parse::<u64>().ok()?))
        });
        let all = disks.len() as u64 - array.failed - array.spare;
        (array.required, array.active) = counts.unwrap_or((all, all));
        // Nobody counts the disks of an array that does not run.
        if array.state == "inactive" {
            (array.required, array.active) = (0, 0);
        }
        array.synced = array.blocks;
        for line in below {
            let working = [
                ("recovery", "recovering"),
                ("resync", "resync"),
                ("check", "check"),
            ];
            let Some((_, state)) = working.iter().find(|(word, _)| line.contains(word)) else {
                continue;
            };
            // What is delayed or pending has not begun.
            array.state = state;
            array.synced = synced(line).unwrap_or_default();
        }
        Some(array)
    }
}

/// The first number of `(16775552/195310144)`.
fn synced(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once('(')?;
    rest.split_once('/')?.0.parse().ok()
}

fn push(array: &Array<'_>, catalog: &mut Catalog, out: &mut Readings) {
    let device = ("device", array.name);
    for state in STATES {
        let value = f64::from(u8::from(state == array.state));
        let metric = catalog.gauge("node_md_state", "The state of an array of disks (1).");
        out.push_node(metric, &[device, ("state", state)], value);
    }
    let counts = [
        ("active", array.active),
        ("failed", array.failed),
        ("spare", array.spare),
    ];
    for (state, disks) in counts {
        let metric = catalog.gauge("node_md_disks", "Disks of an array by state.");
        out.push_node(metric, &[device, ("state", state)], disks as f64);
    }
    let numbers = [
        (
            "node_md_disks_required",
            array.required,
            "Disks that an array should have.",
        ),
        ("node_md_blocks", array.blocks, "Blocks of an array."),
        (
            "node_md_blocks_synced",
            array.synced,
            "Blocks of an array that are in step.",
        ),
    ];
    for (name, number, help) in numbers {
        out.push_node(catalog.gauge(name, help), &[device], number as f64);
    }
}
