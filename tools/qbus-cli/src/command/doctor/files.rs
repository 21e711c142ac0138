//! Files of buses: what nobody uses any more, and who may read what.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qbus::{Address, Bus, Clock};

use crate::figures::{bytes, counted, span};
use crate::health::{Finding, Severity};
use crate::look::Look;

/// How the files of named buses begin, and how what lies beside a bus ends.
const PREFIX: &str = "qbus.";
const SNAPSHOT: &str = ".snapshot";
const PREVIOUS: &str = ".snapshot.previous";
/// So many files are named by a command that removes them.
const SHOWN: usize = 3;

/// A group that may emit to a bus should be able to read its page, and go on with it.
pub(super) fn modes(now: &Look) -> Option<Finding> {
    let page = now.page.as_ref()?;
    let of_group = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.permissions().mode() & 0o060, found.gid()))
    };
    let (bus, snapshot) = (of_group(now.address.file())?, of_group(&page.path)?);
    let is_kept = bus.0 == 0o060 && (snapshot.0 != 0o060 || snapshot.1 != bus.1);
    is_kept.then(|| {
        Finding::new(
            Severity::Look,
            format!(
                "the group of the bus may not write to its snapshot {}",
                page.path.display()
            ),
            "others of the group can emit, but neither read the page nor aggregate the bus \
             when this aggregator is gone: who started it is not of that group",
            format!(
                "remove it, and run the aggregator as a user of group {}",
                bus.1
            ),
        )
    })
}

/// Names of the buses that are there, without private ones.
pub(super) fn buses() -> Vec<String> {
    let (_, files) = named_files();
    let names = files.into_keys();
    names
        .filter(|name| {
            name.parse::<Address>()
                .is_ok_and(|address| !address.is_private())
        })
        .collect()
}

/// Where named buses lie, and the files there that this user could remove, by what follows the
/// prefix.
fn named_files() -> (PathBuf, BTreeMap<String, Metadata>) {
    let example: Option<Address> = "example".parse().ok();
    let folder = example.and_then(|address| address.file().parent().map(Path::to_owned));
    let folder = folder.unwrap_or_default();
    let own = rustix::process::geteuid().as_raw();
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (Some(rest), Ok(found)) = (name.strip_prefix(PREFIX), entry.metadata())
            && (found.is_file() || found.is_symlink())
            && (found.uid() == own || own == 0)
        {
            files.insert(rest.to_owned(), found);
        }
    }
    (folder, files)
}

/// What dead processes left where named buses lie.
pub(super) fn left_behind(address: &Address) -> Vec<Finding> {
    let (folder, files) = named_files();
    let (mut orphans, mut private, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for (rest, found) in &files {
        let of = rest
            .strip_suffix(PREVIOUS)
            .or_else(|| rest.strip_suffix(SNAPSHOT));
        match of {
            Some(bus) if files.contains_key(bus) && !rest.ends_with(PREVIOUS) => {}
            Some(_) => orphans.push((folder.join(format!("{PREFIX}{rest}")), found)),
            None if *rest == address.to_string() => {}
            None => {
                let bus = unused(rest).map(|bus| (bus, found));
                match bus
                    .as_ref()
                    .is_some_and(|(bus, _)| bus.address().is_private())
                {
                    true => private.extend(bus),
                    false => idle.extend(bus),
                }
            }
        }
    }
    let found = [of_orphans(&orphans), of_private(&private), of_idle(&idle)];
    found.into_iter().flatten().collect()
}

/// A bus that nobody is attached to, and nobody aggregates.
fn unused(name: &str) -> Option<Bus> {
    let bus = Bus::open(&name.parse().ok()?).ok()?;
    let is_aggregated = bus.aggregator().is_some_and(|aggregator| aggregator.alive);
    let owners = bus.owners().ok()?;
    (!is_aggregated && !owners.iter().any(|owner| owner.alive)).then_some(bus)
}

fn size<'a>(files: impl Iterator<Item = &'a Metadata>) -> String {
    bytes(files.map(|found| found.blocks() * 512).sum())
}

fn of_orphans(orphans: &[(PathBuf, &Metadata)]) -> Option<Finding> {
    let size = size(orphans.iter().map(|(_, found)| *found));
    let names: Vec<String> = orphans
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    (!names.is_empty()).then(|| {
        let files = counted(names.len() as u64, "snapshot", "snapshots");
        Finding::new(
            Severity::Note,
            format!("{files} of buses that are gone: {size}"),
            "the last page of an earlier bus, kept to be read (qbus dump --snapshot)",
            format!("rm {}", names[..names.len().min(SHOWN)].join(" ")),
        )
    })
}

fn of_private(private: &[(Bus, &Metadata)]) -> Option<Finding> {
    let size = size(private.iter().map(|(_, found)| *found));
    let (bus, _) = private.first()?;
    let buses = counted(private.len() as u64, "private bus", "private buses");
    Some(Finding::new(
        Severity::Note,
        format!("{buses} of processes that were killed: {size}"),
        "the next process that makes a private bus removes them",
        format!("qbus rm -b {}", bus.address()),
    ))
}

fn of_idle(idle: &[(Bus, &Metadata)]) -> Option<Finding> {
    let size = size(idle.iter().map(|(_, found)| *found));
    let (first, _) = idle.first()?;
    let now_ns = Clock::Precise.now_ns();
    let told = |(bus, _): &(Bus, &Metadata)| {
        let age = Duration::from_nanos(now_ns.saturating_sub(bus.created_ns()));
        format!("{} (made {} ago)", bus.address(), span(age))
    };
    let names: Vec<String> = idle.iter().map(told).collect();
    Some(Finding::new(
        Severity::Note,
        format!(
            "{} nobody uses: {size}",
            counted(idle.len() as u64, "other bus that", "other buses that")
        ),
        names.join(", "),
        format!(
            "qbus rm -b {}, when nobody will go on with it",
            first.address()
        ),
    ))
}
