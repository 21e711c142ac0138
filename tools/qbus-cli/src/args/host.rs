//! Where the host is and what of it is left out, by node_exporter's own arguments, so that a unit
//! file can move.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use qbus_sampler::{Choice, Filters, Pattern, Roots, Source};

use super::parse_duration;

/// Roots and filters.
#[derive(Debug, Parser)]
#[command(next_help_heading = "The host, as node_exporter's arguments say it")]
pub(crate) struct Host {
    /// The host's /proc.
    #[arg(long = "path.procfs", default_value = "/proc", value_name = "PATH")]
    procfs: PathBuf,
    /// The host's /sys.
    #[arg(long = "path.sysfs", default_value = "/sys", value_name = "PATH")]
    sysfs: PathBuf,
    /// The host's root directory.
    #[arg(long = "path.rootfs", default_value = "/", value_name = "PATH")]
    rootfs: PathBuf,
    /// What udev knows of devices.
    #[arg(
        long = "path.udev.data",
        default_value = "/run/udev/data",
        value_name = "PATH"
    )]
    udev: PathBuf,
    /// Sample only what is named by --collect or --collector.NAME.
    #[arg(long = "collector.disable-defaults")]
    pub(crate) disable_defaults: bool,
    /// Mount points that are left out.
    #[arg(
        long = "collector.filesystem.mount-points-exclude",
        alias = "collector.filesystem.ignored-mount-points",
        value_name = "REGEX"
    )]
    mount_points_exclude: Option<Pattern>,
    /// Types of file systems that are left out.
    #[arg(
        long = "collector.filesystem.fs-types-exclude",
        alias = "collector.filesystem.ignored-fs-types",
        value_name = "REGEX"
    )]
    fs_types_exclude: Option<Pattern>,
    /// How long file systems have to answer.
    #[arg(
        long = "collector.filesystem.mount-timeout",
        default_value = "1s",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    pub(crate) mount_timeout: Duration,
    /// Disks that are left out.
    #[arg(
        long = "collector.diskstats.device-exclude",
        alias = "collector.diskstats.ignored-devices",
        conflicts_with = "disks_include",
        value_name = "REGEX"
    )]
    disks_exclude: Option<Pattern>,
    /// The only disks that are shown.
    #[arg(long = "collector.diskstats.device-include", value_name = "REGEX")]
    disks_include: Option<Pattern>,
    /// Network devices that are left out.
    #[arg(
        long = "collector.netdev.device-exclude",
        alias = "collector.netdev.device-blacklist",
        conflicts_with = "netdev_include",
        value_name = "REGEX"
    )]
    netdev_exclude: Option<Pattern>,
    /// The only network devices that are shown.
    #[arg(
        long = "collector.netdev.device-include",
        alias = "collector.netdev.device-whitelist",
        value_name = "REGEX"
    )]
    netdev_include: Option<Pattern>,
    /// Network devices whose state is left out.
    #[arg(long = "collector.netclass.ignored-devices", value_name = "REGEX")]
    netclass_ignored: Option<Pattern>,
    /// Network devices whose neighbours are left out.
    #[arg(
        long = "collector.arp.device-exclude",
        conflicts_with = "arp_include",
        value_name = "REGEX"
    )]
    arp_exclude: Option<Pattern>,
    /// The only network devices whose neighbours are shown.
    #[arg(long = "collector.arp.device-include", value_name = "REGEX")]
    arp_include: Option<Pattern>,
    /// Sensor chips that are left out.
    #[arg(
        long = "collector.hwmon.chip-exclude",
        conflicts_with = "chips_include",
        value_name = "REGEX"
    )]
    chips_exclude: Option<Pattern>,
    /// The only sensor chips that are shown.
    #[arg(long = "collector.hwmon.chip-include", value_name = "REGEX")]
    chips_include: Option<Pattern>,
    /// Power supplies that are left out.
    #[arg(long = "collector.powersupply.ignored-supplies", value_name = "REGEX")]
    supplies_ignored: Option<Pattern>,
    /// Fields of /proc/vmstat that are shown.
    #[arg(long = "collector.vmstat.fields", value_name = "REGEX")]
    vmstat_fields: Option<Pattern>,
    /// Fields of /proc/net/snmp, netstat and snmp6 that are shown.
    #[arg(long = "collector.netstat.fields", value_name = "REGEX")]
    netstat_fields: Option<Pattern>,
    /// A series for each CPU with its model, family and microcode.
    #[arg(long = "collector.cpu.info")]
    cpu_info: bool,
    /// Flags of the CPU that are shown.
    #[arg(long = "collector.cpu.info.flags-include", value_name = "REGEX")]
    cpu_flags_include: Option<Pattern>,
    /// Bugs of the CPU that are shown.
    #[arg(long = "collector.cpu.info.bugs-include", value_name = "REGEX")]
    cpu_bugs_include: Option<Pattern>,
    /// Where other programs write metrics to files *.prom.
    #[arg(long = "collector.textfile.directory", value_name = "PATH")]
    textfile_directory: Option<PathBuf>,
}

impl Host {
    pub(crate) fn roots(&self) -> Roots {
        Roots {
            proc: self.procfs.clone(),
            sys: self.sysfs.clone(),
            root: self.rootfs.clone(),
            udev: self.udev.clone(),
        }
    }

    /// The filters, with the defaults where nothing was typed.
    pub(crate) fn filters(&self) -> Filters {
        let defaults = Filters::default();
        let choice = |include: &Option<Pattern>, exclude: &Option<Pattern>, default: Choice| {
            // What is included is all that is shown, whatever is excluded by default.
            let typed = include.is_some() || exclude.is_some();
            let own = Choice {
                include: include.clone(),
                exclude: exclude.clone(),
            };
            if typed { own } else { default }
        };
        Filters {
            mount_points_exclude: self.mount_points_exclude.clone(),
            fs_types_exclude: self.fs_types_exclude.clone(),
            diskstats: choice(&self.disks_include, &self.disks_exclude, defaults.diskstats),
            netdev: choice(&self.netdev_include, &self.netdev_exclude, defaults.netdev),
            netclass: choice(&None, &self.netclass_ignored, defaults.netclass),
            arp: choice(&self.arp_include, &self.arp_exclude, defaults.arp),
            hwmon: choice(&self.chips_include, &self.chips_exclude, defaults.hwmon),
            power_supply: choice(&None, &self.supplies_ignored, defaults.power_supply),
            vmstat_fields: self.vmstat_fields.clone().unwrap_or(defaults.vmstat_fields),
            netstat_fields: self
                .netstat_fields
                .clone()
                .unwrap_or(defaults.netstat_fields),
            cpu_info: self.cpu_info,
            cpu_flags_include: self.cpu_flags_include.clone(),
            cpu_bugs_include: self.cpu_bugs_include.clone(),
            textfile_directory: self.textfile_directory.clone(),
        }
    }
}

/// Arguments of node_exporter that change nothing here: what they ask for is so always, or there is
/// no such thing. With a value, except for those of the second list.
const WITH_VALUE: [&str; 3] = ["--log.level", "--log.format", "--runtime.gomaxprocs"];
const WITHOUT_VALUE: [&str; 5] = [
    "--collector.cpu.guest",
    "--collector.netclass.ignore-invalid-speed",
    "--collector.netclass.netlink",
    "--collector.netdev.netlink",
    "--web.disable-exporter-metrics",
];

/// node_exporter's arguments as our own: `--collector.NAME` and `--no-collector.NAME` switch
/// sources, and what changes nothing is left out. To switch off what there is not is no mistake.
/// Only `agg` and `sample` sample; what follows `run` is another program's.
pub(crate) fn translated(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let typed: Vec<OsString> = typed.into_iter().collect();
    let command = typed.iter().find(|word| {
        let commands = ["agg", "sample", "run"];
        commands.iter().any(|command| *word == command)
    });
    if command.is_none_or(|command| command == "run") {
        return typed;
    }
    let mut translated = Vec::with_capacity(typed.len());
    let mut typed = typed.into_iter();
    while let Some(word) = typed.next() {
        let Some(text) = word.to_str() else {
            translated.push(word);
            continue;
        };
        let name = text.split('=').next().unwrap_or(text);
        if WITH_VALUE.contains(&name) {
            // The value may stand apart.
            let _ = (name == text).then(|| typed.next());
        } else if let Some(off) = text.strip_prefix("--no-collector.") {
            let source = Source::from_name(off);
            translated
                .extend(source.map(|source| format!("--no-collect={}", source.name()).into()));
        } else if let Some(on) = text
            .strip_prefix("--collector.")
            .and_then(Source::from_name)
        {
            translated.push(format!("--collect={}", on.name()).into());
        } else if !WITHOUT_VALUE.contains(&text) {
            translated.push(word);
        }
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_of_node_exporter_are_sources() {
        let typed = [
            "agg",
            "--collector.diskstats",
            "--no-collector.wifi",
            "--no-collector.hwmon",
        ];
        let translated = translated(typed.map(OsString::from));
        assert_eq!(translated, ["agg", "--collect=disk", "--no-collect=hwmon"]);
        let kept = ["agg", "--collector.netdev.device-exclude=^veth"];
        assert_eq!(super::translated(kept.map(OsString::from)), kept);
    }

    #[test]
    fn what_changes_nothing_is_left_out_and_other_programs_keep_theirs() {
        let typed = [
            "sample",
            "--log.level=info",
            "--log.format",
            "json",
            "--collector.netdev.netlink",
            "--once",
        ];
        assert_eq!(translated(typed.map(OsString::from)), ["sample", "--once"]);
        let foreign = [
            "run",
            "--",
            "node_exporter",
            "--no-collector.wifi",
            "--log.level=info",
        ];
        assert_eq!(translated(foreign.map(OsString::from)), foreign);
    }
}
