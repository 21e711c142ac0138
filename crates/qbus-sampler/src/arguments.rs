//! Options by the names of node_exporter's arguments, for callers without a command line: a table
//! of settings, or Python's keywords.

use std::fmt;

use crate::config::{SamplerOptions, Source};
use crate::filters::{Choice, Pattern};

/// Why an argument is unknown, or its value wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentError {
    /// There is no argument of that name.
    Unknown(String),
    /// The argument takes another value.
    Value {
        /// The argument.
        name: String,
        /// What is wrong with its value.
        why: String,
    },
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgumentError::Unknown(name) => write!(
                f,
                "found `{name}`, expected an argument of node_exporter without its dashes, such as \
                 `path.procfs` or `collector.netdev.device-exclude`"
            ),
            ArgumentError::Value { name, why } => write!(f, "{name}: {why}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

impl SamplerOptions {
    /// Sets what the argument of that name sets for node_exporter: `path.procfs`, say, or
    /// `collector.netdev.device-exclude`. What switches something on or off (`collector.cpu.info`,
    /// `collector.hwmon`, `no-collector.hwmon`) takes `true` or `false`.
    ///
    /// ```
    /// use qbus_sampler::SamplerOptions;
    ///
    /// let mut options = SamplerOptions::default();
    /// options.set_argument("path.procfs", "/host/proc")?;
    /// options.set_argument("collector.netdev.device-exclude", "^veth")?;
    /// options.set_argument("no-collector.hwmon", "true")?;
    /// assert_eq!(options.roots.proc, std::path::Path::new("/host/proc"));
    /// # Ok::<(), qbus_sampler::ArgumentError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// There is no such argument, or it takes no such value. Then nothing has changed.
    pub fn set_argument(&mut self, name: &str, value: &str) -> Result<(), ArgumentError> {
        let wrong = |why: String| ArgumentError::Value {
            name: name.to_owned(),
            why,
        };
        let pattern = || -> Result<Pattern, ArgumentError> {
            value.parse().map_err(|err| wrong(format!("{err}")))
        };
        let switch = || -> Result<bool, ArgumentError> {
            let expected = || wrong(format!("expected true or false, found `{value}`"));
            value.parse().map_err(|_| expected())
        };
        let except = |pattern| Choice {
            include: None,
            exclude: Some(pattern),
        };
        let only = |pattern| Choice {
            include: Some(pattern),
            exclude: None,
        };
        let (roots, filters) = (&mut self.roots, &mut self.filters);
        match name {
            "path.procfs" => roots.proc = value.into(),
            "path.sysfs" => roots.sys = value.into(),
            "path.rootfs" => roots.root = value.into(),
            "path.udev.data" => roots.udev = value.into(),
            "collector.textfile.directory" => filters.textfile_directory = Some(value.into()),
            "collector.filesystem.mount-points-exclude" => {
                filters.mount_points_exclude = Some(pattern()?);
            }
            "collector.filesystem.fs-types-exclude" => filters.fs_types_exclude = Some(pattern()?),
            "collector.diskstats.device-exclude" => filters.diskstats = except(pattern()?),
            "collector.diskstats.device-include" => filters.diskstats = only(pattern()?),
            "collector.netdev.device-exclude" => filters.netdev = except(pattern()?),
            "collector.netdev.device-include" => filters.netdev = only(pattern()?),
            "collector.netclass.ignored-devices" => filters.netclass = except(pattern()?),
            "collector.arp.device-exclude" => filters.arp = except(pattern()?),
            "collector.arp.device-include" => filters.arp = only(pattern()?),
            "collector.hwmon.chip-exclude" => filters.hwmon = except(pattern()?),
            "collector.hwmon.chip-include" => filters.hwmon = only(pattern()?),
            "collector.powersupply.ignored-supplies" => filters.power_supply = except(pattern()?),
            "collector.vmstat.fields" => filters.vmstat_fields = pattern()?,
            "collector.netstat.fields" => filters.netstat_fields = pattern()?,
            "collector.cpu.info" => filters.cpu_info = switch()?,
            "collector.cpu.info.flags-include" => filters.cpu_flags_include = Some(pattern()?),
            "collector.cpu.info.bugs-include" => filters.cpu_bugs_include = Some(pattern()?),
            name => {
                let (named, on) = match name.strip_prefix("no-collector.") {
                    Some(named) => (Some(named), false),
                    None => (name.strip_prefix("collector."), true),
                };
                let source = named.and_then(Source::from_name);
                let source = source.ok_or_else(|| ArgumentError::Unknown(name.to_owned()))?;
                self.switch(source, switch()? == on);
            }
        }
        Ok(())
    }

    /// Samples a source, or samples it no more.
    fn switch(&mut self, source: Source, on: bool) {
        self.sources.retain(|known| *known != source);
        if on {
            self.sources.push(source);
        }
        // The most useful first: what finds no place in a registry is what would be missed least.
        self.sources.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_switched_in_its_place() {
        let mut options = SamplerOptions::default();
        let default = options.sources.clone();
        options.set_argument("no-collector.cpu", "true").unwrap();
        assert!(!options.sources.contains(&Source::Cpu));
        options.set_argument("collector.cpu", "true").unwrap();
        assert_eq!(options.sources, default);
    }

    #[test]
    fn what_is_wrong_is_said_and_changes_nothing() {
        let mut options = SamplerOptions::default();
        let before = format!("{options:?}");
        for (name, value, said) in [
            (
                "path.proc",
                "/",
                "found `path.proc`, expected an argument of node_exporter",
            ),
            ("collector.cpus", "true", "found `collector.cpus`"),
            (
                "collector.cpu.info",
                "yes",
                "collector.cpu.info: expected true or false, found `yes`",
            ),
            (
                "collector.arp.device-include",
                "(",
                "collector.arp.device-include: expected a regular expression, found `(`",
            ),
        ] {
            let error = options.set_argument(name, value).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
        assert_eq!(format!("{options:?}"), before);
    }
}
