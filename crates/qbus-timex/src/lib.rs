//! What the kernel says of how well its clock is kept: `adjtimex`, read and never written.
//!
//! A crate of its own since the sampler, which forbids unsafe code, has nobody else to ask: no file
//! says this, and no library that is in use here wraps the call.

use std::io;
use std::mem::MaybeUninit;

/// The state of the clock's discipline, in the units of the kernel where no other is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timex {
    /// Seconds by which the clock is known to be off.
    pub offset_seconds: f64,
    /// How fast the clock runs by the adjustment: 1 is as the hardware does.
    pub frequency_ratio: f64,
    /// The most that the clock can be off, in seconds.
    pub max_error_seconds: f64,
    /// What the clock is estimated to be off, in seconds.
    pub estimated_error_seconds: f64,
    /// Bits of `STA_…`.
    pub status: u32,
    /// Time constant of the discipline's loop.
    pub loop_time_constant: f64,
    /// Seconds between two ticks of the clock.
    pub tick_seconds: f64,
    /// Hertz of the pulse per second, which a receiver gives.
    pub pps_frequency_hertz: f64,
    /// Jitter of the pulse, in seconds.
    pub pps_jitter_seconds: f64,
    /// Seconds of the interval in which the pulse is calibrated.
    pub pps_shift_seconds: f64,
    /// Stability of the pulse, in hertz.
    pub pps_stability_hertz: f64,
    /// Times that the jitter was beyond its limit.
    pub pps_jitter_exceeded: u64,
    /// Calibrations of the pulse.
    pub pps_calibrations: u64,
    /// Calibrations that failed.
    pub pps_errors: u64,
    /// Times that the stability was beyond its limit.
    pub pps_stability_exceeded: u64,
    /// Seconds from UTC to TAI.
    pub tai_offset_seconds: f64,
    /// Whether somebody keeps the clock.
    pub is_synchronized: bool,
}

/// A frequency of the kernel has 16 bits behind its point, and counts millionths.
const PPM_PER_UNIT: f64 = 1.0 / 65_536.0;
const MILLION: f64 = 1e6;
const BILLION: f64 = 1e9;

/// Asks the kernel.
///
/// # Errors
///
/// That of the call: a sandbox can forbid it.
pub fn read() -> io::Result<Timex> {
    let mut raw = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: a `timex` is made of integers alone, for all of which zero is a value.
    let mode = unsafe { raw.assume_init_mut() };
    // Nothing is set.
    mode.modes = 0;
    // SAFETY: the pointer is to a `timex` of our own, and with no mode the call only writes to it.
    let state = unsafe { libc::adjtimex(mode) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Timex::of(mode, state))
}

impl Timex {
    fn of(raw: &libc::timex, state: i32) -> Timex {
        let nanoseconds = raw.status & libc::STA_NANO != 0;
        let divisor = if nanoseconds { BILLION } else { MILLION };
        Timex {
            offset_seconds: raw.offset as f64 / divisor,
            frequency_ratio: 1.0 + raw.freq as f64 * PPM_PER_UNIT / MILLION,
            max_error_seconds: raw.maxerror as f64 / MILLION,
            estimated_error_seconds: raw.esterror as f64 / MILLION,
            status: raw.status as u32,
            loop_time_constant: raw.constant as f64,
            tick_seconds: raw.tick as f64 / MILLION,
            pps_frequency_hertz: raw.ppsfreq as f64 * PPM_PER_UNIT / MILLION,
            pps_jitter_seconds: raw.jitter as f64 / divisor,
            pps_shift_seconds: f64::from(raw.shift),
            pps_stability_hertz: raw.stabil as f64 * PPM_PER_UNIT / MILLION,
            pps_jitter_exceeded: raw.jitcnt as u64,
            pps_calibrations: raw.calcnt as u64,
            pps_errors: raw.errcnt as u64,
            pps_stability_exceeded: raw.stbcnt as u64,
            tai_offset_seconds: f64::from(raw.tai),
            is_synchronized: state != libc::TIME_ERROR && raw.status & libc::STA_UNSYNC == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers_in_sensible_units() {
        let Ok(timex) = super::read() else { return };
        assert!((0.9..1.1).contains(&timex.frequency_ratio), "{timex:?}");
        assert!((0.005..0.02).contains(&timex.tick_seconds), "{timex:?}");
        assert!(timex.max_error_seconds >= 0.0, "{timex:?}");
    }
}
