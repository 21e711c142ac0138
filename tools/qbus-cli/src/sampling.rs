//! What the sampler is to do, as typed; and what it says.

use std::io::{self, Write};

use qbus_sampler::{SamplerOptions, Source};

use crate::args::Sources;

/// What the sampler is to do, as typed.
pub(crate) fn options(sources: &Sources, no_host: bool, no_gpu: bool) -> SamplerOptions {
    let wanted = |source: &Source| {
        let by_default = source.on_by_default()
            && if *source == Source::Gpu {
                !no_gpu
            } else {
                !no_host
            };
        (by_default || sources.collect.contains(source)) && !sources.no_collect.contains(source)
    };
    SamplerOptions {
        sources: Source::ALL.iter().copied().filter(wanted).collect(),
        names: sources.names.into(),
        per_cpu: sources.per_cpu,
        pid_label: sources.pid_label,
        own_role: Some("aggregator".to_owned()),
        nvml: sources.nvml.clone(),
        ..SamplerOptions::default()
    }
}

/// A line on standard error.
pub(crate) fn warn(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "qbus: {text}");
}
