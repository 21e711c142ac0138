//! The machine: what sums it up, above the list of its metrics.

use super::canvas::Canvas;
use super::used;
use crate::top::machine::{Gpu, Machine};
use crate::top::text::Look;
use crate::top::units::{Unit, show, show_rate};

/// Cores on a line.
const CORES: usize = 8;

/// How many lines [`draw`] takes.
pub(super) fn lines(machine: &Machine) -> usize {
    let told = usize::from(!machine.rates.is_empty())
        + usize::from(!machine.pressures.is_empty())
        + usize::from(!machine.load.is_nan());
    machine.gpus.len() + machine.cores.len().div_ceil(CORES) + machine.limits.len() + told
}

pub(super) fn draw(machine: &Machine, look: Look, height: usize, canvas: &mut Canvas<'_>) {
    let mut left = height;
    let mut tell = |title: &str, text: &str, bars: &[f32]| {
        if left == 0 {
            return;
        }
        left -= 1;
        let mut line = canvas.line();
        line.put(0, title, look.dim());
        let at = line.put_all(10, text, look.title());
        line.put(at + 2, &look.bars(bars), look.line());
    };
    for gpu in &machine.gpus {
        tell(&format!("GPU {}", gpu.name), &of_gpu(gpu), &gpu.bars);
    }
    if !machine.load.is_nan() {
        tell("load", &show(machine.load, Unit::None), &[]);
    }
    for cores in machine.cores.chunks(CORES) {
        let told = cores
            .iter()
            .map(|(name, usage)| format!("{name}:{:>5}", show(*usage, Unit::Ratio)));
        tell("cores", &told.collect::<Vec<_>>().join("  "), &[]);
    }
    let named = |values: &[(&str, f64)], unit: Unit| {
        let told = values
            .iter()
            .map(|(name, value)| format!("{name} {}", show_rate(*value, unit)));
        told.collect::<Vec<_>>().join("  ")
    };
    if !machine.rates.is_empty() {
        tell("moved", &named(&machine.rates, Unit::Bytes), &[]);
    }
    if !machine.pressures.is_empty() {
        tell("waiting", &named(&machine.pressures, Unit::Seconds), &[]);
    }
    for (name, part, all) in &machine.limits {
        tell("limit", &format!("{} {name}", used(*part, *all)), &[]);
    }
}

fn of_gpu(gpu: &Gpu) -> String {
    let memory = used(gpu.memory_used, gpu.memory_total);
    let mut text = format!("{:>6}  {memory:>16}", show(gpu.usage, Unit::Ratio));
    for (value, unit) in [(gpu.temperature, Unit::Celsius), (gpu.power, Unit::Watts)] {
        if !value.is_nan() {
            text.push_str(&format!("  {:>7}", show(value, unit)));
        }
    }
    text
}
