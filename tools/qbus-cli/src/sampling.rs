//! What the sampler is to do, as typed.

use qbus_sampler::{SamplerOptions, Source};

use crate::args::Sources;

/// What the sampler is to do, as typed.
pub(crate) fn options(sources: &Sources, no_host: bool, no_gpu: bool) -> SamplerOptions {
    let (names, gpu_names) = sources.names();
    let defaults = match sources.host.disable_defaults {
        true => Vec::new(),
        false => Source::defaults(names),
    };
    let is_gpu = |source: &Source| matches!(source, Source::Gpu | Source::Amdgpu);
    let wanted = |source: &Source| {
        let is_off = if is_gpu(source) { no_gpu } else { no_host };
        let by_default = defaults.contains(source) && !is_off;
        (by_default || sources.collect.contains(source)) && !sources.no_collect.contains(source)
    };
    SamplerOptions {
        sources: Source::ALL.iter().copied().filter(wanted).collect(),
        names,
        gpu_names,
        per_cpu: sources.per_cpu,
        pid_label: sources.pid_label,
        own_role: Some("aggregator".to_owned()),
        roots: sources.host.roots(),
        filters: sources.host.filters(),
        mount_timeout: sources.host.mount_timeout,
        nvml: sources.nvml.clone(),
        gpm: sources.gpm,
        ..SamplerOptions::default()
    }
}
