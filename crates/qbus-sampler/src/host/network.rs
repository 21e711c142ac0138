//! Network devices and TCP.

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

/// The names of `/proc/net/snmp` in its rows of TCP.
const TCP: [(&str, Reading); 6] = [
    ("ActiveOpens", Reading::TcpActiveOpens),
    ("PassiveOpens", Reading::TcpPassiveOpens),
    ("CurrEstab", Reading::TcpEstablished),
    ("InSegs", Reading::TcpReceivedSegments),
    ("OutSegs", Reading::TcpSentSegments),
    ("RetransSegs", Reading::TcpRetransmittedSegments),
];

/// Reads `/proc/net/dev`: the devices of the sampler's own network namespace.
pub(crate) fn parse_devices(text: &str, out: &mut Readings) -> Result<(), Failure> {
    for line in text.lines() {
        // The two lines of headings have no colon. A name may (an alias), numbers don't.
        let Some((device, numbers)) = line.rsplit_once(':') else {
            continue;
        };
        let device = device.trim();
        for (reading, number) in COLUMNS.into_iter().zip(numbers.split_ascii_whitespace()) {
            match number.parse::<u64>() {
                Ok(number) => out.push(reading, &[("device", device)], number as f64),
                Err(_) => out.fail(|| format!("can't read the line `{line}`")),
            }
        }
    }
    Ok(())
}

/// Reads `/proc/net/snmp`, where a line of names precedes each line of numbers.
pub(crate) fn parse_tcp(text: &str, out: &mut Readings) -> Result<(), Failure> {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (Some(names), Some(numbers)) = (rows.next(), rows.next()) else {
        return Err(Failure::Failed("it has no rows of TCP".to_owned()));
    };
    for (name, number) in names
        .split_ascii_whitespace()
        .zip(numbers.split_ascii_whitespace())
    {
        let known = TCP.iter().find(|(known, _)| *known == name);
        if let (Some((_, reading)), Ok(number)) = (known, number.parse::<u64>()) {
            out.push(*reading, &[], number as f64);
        }
    }
    Ok(())
}
