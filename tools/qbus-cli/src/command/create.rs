//! `qbus create`

use std::io::Write;

use qbus::{Address, Bus, BusOptions, CreateError, Geometry, OpenError};

use crate::args::Create;
use crate::error::Error;

pub(crate) fn run(address: &Address, create: &Create, out: &mut dyn Write) -> Result<(), Error> {
    let few = create
        .lanes
        .div_ceil(4)
        .min(Geometry::default().shared_lanes);
    let geometry = Geometry {
        lanes: create.lanes,
        // A single lane is better shared than leased by whoever comes first.
        shared_lanes: create.shared_lanes.unwrap_or(few),
        slots: create.slots,
        cells: create.cells,
        owners: create.max_owners,
        families: create.max_families,
        series: create.max_series,
        ..Geometry::default()
    };
    let config = BusOptions {
        geometry: geometry.with_arena(),
        mode: create.mode,
        max_series_per_family: create.max_series_per_family,
    };
    let bus = match create.if_absent {
        false => Bus::create(address, &config).map_err(|error| refused(address, error))?,
        true => match Bus::open(address) {
            Ok(_) => return Ok(()),
            // Who is faster has made it.
            Err(_) => Bus::open_or_create(address, &config).map_err(Error::failed)?,
        },
    };
    let path = bus.address().file().display();
    writeln!(
        out,
        "created the bus {address}: {path}, {} bytes",
        bus.geometry().size_bytes()
    )?;
    Ok(())
}

/// Why there is no new bus; where there is one already, what else can be done.
fn refused(address: &Address, error: CreateError) -> Error {
    let CreateError::Exists { path } = error else {
        return Error::failed(error);
    };
    match Bus::open(address) {
        // Nothing that `qbus rm` would remove.
        Err(error @ (OpenError::NotOurs { .. } | OpenError::NotAFile { .. })) => {
            Error::failed(error)
        }
        _ => Error::Failed(format!(
            "the bus {address} exists already ({}): use it as it is, as with --if-absent, or \
            remove it first: `qbus rm -b {address}`",
            path.display()
        )),
    }
}
