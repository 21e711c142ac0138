//! `qbus rm`

use qbus::{Address, Bus, Removal, RemoveError};

use crate::args::Rm;
use crate::error::Error;

pub(crate) fn run(address: &Address, rm: &Rm) -> Result<(), Error> {
    let removal = if rm.force {
        Removal::Forced
    } else {
        Removal::Unused
    };
    Bus::remove(address, removal).map_err(|error| match error {
        RemoveError::Open(error) if error.is_absent() => {
            Error::Absent(format!("no bus {address}: {error}"))
        }
        error => Error::failed(error),
    })
}
