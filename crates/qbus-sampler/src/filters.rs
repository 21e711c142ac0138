//! What of a subject is left out: node_exporter's filters under its own names, with its defaults.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use regex_lite::Regex;

/// A regular expression, in the syntax that RE2 and Rust share.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Why a text is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    found: String,
    why: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PatternError { found, why } = self;
        write!(f, "expected a regular expression, found `{found}`: {why}")
    }
}

impl std::error::Error for PatternError {}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        Regex::new(text).map(Pattern).map_err(|err| PatternError {
            found: text.to_owned(),
            why: err.to_string(),
        })
    }
}

impl PartialEq for Pattern {
    /// Whether both are the same text.
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// Whether any part of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// One of this crate's own patterns.
    pub(crate) fn own(text: &str) -> Pattern {
        text.parse().expect("the crate's own patterns are tested")
    }
}

/// What is shown of a subject that has many things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only these are shown.
    pub include: Option<Pattern>,
    /// These are not shown.
    pub exclude: Option<Pattern>,
}

impl Choice {
    fn without(exclude: &str) -> Choice {
        Choice {
            include: None,
            exclude: Some(Pattern::own(exclude)),
        }
    }

    /// Whether a thing of this name is shown.
    pub fn has(&self, name: &str) -> bool {
        let included = self.include.as_ref().is_none_or(|only| only.matches(name));
        included && !self.exclude.as_ref().is_some_and(|not| not.matches(name))
    }
}

const FIELDS_OF_NETSTAT: &str = "^(.*_(InErrors|InErrs)\
    |Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)\
    |TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts)\
    |Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)\
    |Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";

const TYPES_WITHOUT_SPACE: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts\
    |devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs\
    |securityfs|selinuxfs|squashfs|sysfs|tracefs)$";

const MOUNT_POINTS_OF_THE_SYSTEM: &str = "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+\
    |var/lib/containers/storage/.+)($|/)";

/// The filters of all sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filters {
    /// `--collector.filesystem.mount-points-exclude`. `None` is node_exporter's default, with
    /// `/dev/shm` shown, where the bus lies.
    pub mount_points_exclude: Option<Pattern>,
    /// `--collector.filesystem.fs-types-exclude`. `None` is node_exporter's default, with the
    /// overlay on `/` shown, which is the root of a container.
    pub fs_types_exclude: Option<Pattern>,
    /// `--collector.diskstats.device-include` and `…-exclude`.
    pub diskstats: Choice,
    /// `--collector.netdev.device-include` and `…-exclude`.
    pub netdev: Choice,
    /// `--collector.netclass.ignored-devices`.
    pub netclass: Choice,
    /// `--collector.arp.device-include` and `…-exclude`.
    pub arp: Choice,
    /// `--collector.hwmon.chip-include` and `…-exclude`.
    pub hwmon: Choice,
    /// `--collector.powersupply.ignored-supplies`.
    pub power_supply: Choice,
    /// `--collector.vmstat.fields`.
    pub vmstat_fields: Pattern,
    /// `--collector.netstat.fields`.
    pub netstat_fields: Pattern,
    /// `--collector.cpu.info`: a series for each CPU with model, family and microcode.
    pub cpu_info: bool,
    /// `--collector.cpu.info.flags-include`: flags of the first CPU that are shown.
    pub cpu_flags_include: Option<Pattern>,
    /// `--collector.cpu.info.bugs-include`.
    pub cpu_bugs_include: Option<Pattern>,
    /// `--collector.textfile.directory`: where files `*.prom` lie; none are read without.
    pub textfile_directory: Option<PathBuf>,
}

impl Default for Filters {
    fn default() -> Filters {
        let no_disks = r"^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
        Filters {
            mount_points_exclude: None,
            fs_types_exclude: None,
            diskstats: Choice::without(no_disks),
            netdev: Choice::default(),
            netclass: Choice::without("^$"),
            arp: Choice::default(),
            hwmon: Choice::default(),
            power_supply: Choice::without("^$"),
            vmstat_fields: Pattern::own("^(oom_kill|pgpg|pswp|pg.*fault).*"),
            netstat_fields: Pattern::own(FIELDS_OF_NETSTAT),
            cpu_info: false,
            cpu_flags_include: None,
            cpu_bugs_include: None,
            textfile_directory: None,
        }
    }
}

impl Filters {
    /// Which file systems are shown, with the defaults filled in.
    pub(crate) fn filesystems(&self, node_names: bool) -> FilesystemFilter {
        FilesystemFilter {
            mount_points: self
                .mount_points_exclude
                .clone()
                .unwrap_or_else(|| Pattern::own(MOUNT_POINTS_OF_THE_SYSTEM)),
            fs_types: self
                .fs_types_exclude
                .clone()
                .unwrap_or_else(|| Pattern::own(TYPES_WITHOUT_SPACE)),
            shows_shm: self.mount_points_exclude.is_none() && !node_names,
            shows_root_overlay: self.fs_types_exclude.is_none() && !node_names,
        }
    }
}

/// Which file systems are shown.
pub(crate) struct FilesystemFilter {
    mount_points: Pattern,
    fs_types: Pattern,
    shows_shm: bool,
    shows_root_overlay: bool,
}

impl FilesystemFilter {
    pub(crate) fn has(&self, mount_point: &str, fs_type: &str) -> bool {
        let root_overlay = self.shows_root_overlay && mount_point == "/" && fs_type == "overlay";
        let shm = self.shows_shm && mount_point == "/dev/shm";
        (root_overlay || !self.fs_types.matches(fs_type))
            && (shm || !self.mount_points.matches(mount_point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_node_exporter() {
        let filters = Filters::default();
        for (disk, shown) in [
            ("sda", true),
            ("sda1", false),
            ("nvme0n1", true),
            ("nvme0n1p2", false),
            ("dm-0", true),
            ("loop3", false),
            ("xvda1", false),
            ("md127", true),
        ] {
            assert_eq!(filters.diskstats.has(disk), shown, "{disk}");
        }
        assert!(filters.netstat_fields.matches("TcpExt_ListenDrops"));
        assert!(!filters.netstat_fields.matches("TcpExt_TCPHPHits"));
    }

    #[test]
    fn a_disk_of_its_own_below_a_runtimes_folder_is_shown() {
        let filter = Filters::default().filesystems(false);
        assert!(filter.has("/var/lib/docker", "ext4"), "a disk of its own");
        assert!(!filter.has("/var/lib/docker/overlay2/x/merged", "ext4"));
        assert!(!filter.has("/var/lib/docker/overlay2/x/merged", "overlay"));
        assert!(filter.has("/dev/shm", "tmpfs") && !filter.has("/dev", "devtmpfs"));
        assert!(filter.has("/", "overlay"));
        let node = Filters::default().filesystems(true);
        assert!(!node.has("/dev/shm", "tmpfs") && !node.has("/", "overlay"));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        let said = "(".parse::<Pattern>().unwrap_err().to_string();
        assert!(
            said.starts_with("expected a regular expression, found `(`"),
            "{said}"
        );
    }
}
