//! Where StatsD is listened for, as it is typed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::endpoint::Endpoint;

/// Of a new socket: its user and group.
const MODE: u32 = 0o660;

/// A socket for datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatsdAddress {
    /// Host and port of UDP.
    Udp(String),
    /// A socket in the file system.
    Unix {
        /// Where.
        path: PathBuf,
        /// Who may write to it.
        mode: u32,
    },
}

/// What names no socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    found: String,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.found;
        write!(
            f,
            "the address is {found:?}, expected 127.0.0.1:8125, [::1]:8125, :8125 (all addresses) \
             or unix:PATH[,mode=0660]"
        )
    }
}

impl std::error::Error for AddressError {}

impl FromStr for StatsdAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<StatsdAddress, AddressError> {
        match Endpoint::parse(text, MODE) {
            Some(Endpoint::Host(address)) => Ok(StatsdAddress::Udp(address)),
            Some(Endpoint::Unix { path, mode }) => Ok(StatsdAddress::Unix { path, mode }),
            None => Err(AddressError {
                found: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for StatsdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatsdAddress::Udp(address) => f.write_str(address),
            StatsdAddress::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}
