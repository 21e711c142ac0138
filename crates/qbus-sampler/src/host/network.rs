//! Network devices, as `/proc/net/dev` counts them.

use crate::filters::Choice;
use crate::probe::Failure;
use crate::readings::Readings;
use crate::table::Reading;

/// The columns of `/proc/net/dev` after the name of the device.
const COLUMNS: [Reading; 16] = [
    Reading::NetworkReceiveBytes,
    Reading::NetworkReceivePackets,
    Reading::NetworkReceiveErrors,
    Reading::NetworkReceiveDrops,
    Reading::NetworkReceiveFifo,
    Reading::NetworkReceiveFrame,
    Reading::NetworkReceiveCompressed,
    Reading::NetworkReceiveMulticast,
    Reading::NetworkTransmitBytes,
    Reading::NetworkTransmitPackets,
    Reading::NetworkTransmitErrors,
    Reading::NetworkTransmitDrops,
    Reading::NetworkTransmitFifo,
    Reading::NetworkTransmitCollisions,
    Reading::NetworkTransmitCarrier,
    Reading::NetworkTransmitCompressed,
];

/// Reads `/proc/net/dev`: the devices of the network namespace of the process that `net` is of.
pub(crate) fn parse_devices(
    text: &str,
    choice: &Choice,
    out: &mut Readings,
) -> Result<(), Failure> {
    for line in text.lines() {
        // The two lines of headings have no colon. A name may (an alias), numbers don't.
        let Some((device, numbers)) = line.rsplit_once(':') else {
            continue;
        };
        let device = device.trim();
        if !choice.has(device) {
            continue;
        }
        for (reading, number) in COLUMNS.into_iter().zip(numbers.split_ascii_whitespace()) {
            match number.parse::<u64>() {
                Ok(number) => out.push(reading, &[("device", device)], number as f64),
                Err(_) => out.fail(|| format!("can't read the line `{line}`")),
            }
        }
    }
    Ok(())
}
