//! Notifications for a service manager: systemd's sd_notify(3), without its library.
//!
//! Datagrams go to the socket that the environment's NOTIFY_SOCKET names. Where nobody listens,
//! nothing is said.

use std::env;
use std::fmt::Display;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

/// The service manager, if one started this process and wants notifications.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    /// How long the process may stay silent, if the manager minds.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    pub(crate) fn of_environment() -> Manager {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| connect(name.as_bytes()));
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // Meant for another process that shares the environment.
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&limit| is_meant && limit > 0);
        Manager {
            watchdog: watchdog
                .map(Duration::from_micros)
                .filter(|_| socket.is_some()),
            socket,
        }
    }

    /// How long the process may stay silent before it is ended; `None` when it may for ever.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// All is started; and what it does, in a line for people.
    pub(crate) fn ready(&self, status: impl Display) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The process works.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The process is about to end.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // A manager that is gone, or busy, hears nothing; that must stop nobody.
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// A path, or a name in the abstract namespace, which begins with `@`.
fn connect(name: &[u8]) -> Option<UnixDatagram> {
    let address = match name.split_first()? {
        (b'@', rest) => SocketAddr::from_abstract_name(rest).ok()?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address).ok()?;
    Some(socket)
}
