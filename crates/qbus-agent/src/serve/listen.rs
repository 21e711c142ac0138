//! Where a server listens: TCP, a unix socket, or sockets that systemd hands over.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::endpoint::Endpoint;

/// The port of OpenTelemetry's Prometheus exporter: no other of qbus' kind has a better one.
const PORT: u16 = 9464;
/// Who may use a unix socket unless it is said: this user.
const MODE: u32 = 0o600;

/// An address to listen on: `127.0.0.1:9464`, `[::1]:9464`, `:9464` (all addresses),
/// `localhost:9464`, `unix:/run/qbus.sock`, `unix:/run/qbus.sock,mode=0660`, or `systemd` for the
/// sockets of its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; a name may stand for several addresses.
    Tcp(String),
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Who may connect: permissions as for `chmod`.
        mode: u32,
    },
    /// All sockets that systemd opened for this process.
    Systemd,
}

impl Default for Listen {
    /// 127.0.0.1:9464: this machine alone.
    fn default() -> Listen {
        Listen::Tcp(format!("127.0.0.1:{PORT}"))
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// It is no address: neither `HOST:PORT` nor `unix:PATH`.
    Malformed {
        /// What was given.
        found: String,
    },
    /// The system refuses it.
    Refused {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody serves on that unix socket.
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The process was not started by a socket unit.
    NoSockets,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Malformed { found } => write!(
                f,
                "{found:?} is no address to listen on; expected 127.0.0.1:9464, [::1]:9464, :9464, \
                 unix:PATH, unix:PATH,mode=0660 or systemd"
            ),
            ListenError::Refused { address, source } if is_taken(source) => write!(
                f,
                "{address} is taken: another server runs there; stop it, or choose another port"
            ),
            ListenError::Refused { address, source } => {
                write!(f, "could not listen on {address}: {source}")
            }
            ListenError::Taken { path } => write!(
                f,
                "{} is taken: another server runs there; stop it, or choose another path",
                path.display()
            ),
            ListenError::NoSockets => write!(
                f,
                "systemd handed over no sockets; start it by a .socket unit, or say an address"
            ),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

impl std::error::Error for ListenError {}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Listen, ListenError> {
        if text == "systemd" {
            return Ok(Listen::Systemd);
        }
        match Endpoint::parse(text, MODE) {
            Some(Endpoint::Host(address)) => Ok(Listen::Tcp(address)),
            Some(Endpoint::Unix { path, mode }) => Ok(Listen::Unix { path, mode }),
            None => Err(ListenError::Malformed {
                found: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => f.write_str(address),
            Listen::Unix { path, mode } => write!(f, "unix:{},mode={mode:04o}", path.display()),
            Listen::Systemd => f.write_str("systemd"),
        }
    }
}

impl Listen {
    /// Listens, within a runtime.
    pub(super) fn bind(&self) -> Result<Vec<Listener>, ListenError> {
        let refused = |source| ListenError::Refused {
            address: self.to_string(),
            source,
        };
        match self {
            Listen::Tcp(address) => {
                let all: Vec<SocketAddr> = address.to_socket_addrs().map_err(refused)?.collect();
                // A name with addresses of both families: whoever has the name may use either.
                let bound = all.iter().map(|address| tcp(*address));
                bound.collect::<io::Result<_>>().map_err(refused)
            }
            Listen::Unix { path, mode } => {
                if StdUnixStream::connect(path).is_ok() {
                    return Err(ListenError::Taken { path: path.clone() });
                }
                let listener = unix(path, *mode).map_err(refused)?;
                Ok(vec![listener])
            }
            Listen::Systemd => handed_over()
                .map_err(refused)?
                .ok_or(ListenError::NoSockets),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<Listener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(TcpListener::from_std(listener)?))
}

/// Binds in a folder that nobody else may enter and moves the socket to its place, so that it never
/// is there with the wrong permissions, and takes the place of one whose server is gone.
fn unix(path: &Path, mode: u32) -> io::Result<Listener> {
    let beside = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = beside.join(format!(".qbus{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let hidden = folder.join("s");
    let bound = UnixListener::bind(&hidden).and_then(|listener| {
        fs::set_permissions(&hidden, Permissions::from_mode(mode))?;
        fs::rename(&hidden, path)?;
        Ok(listener)
    });
    if bound.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    let _ = fs::remove_dir(&folder);
    Ok(Listener::Unix {
        listener: bound?,
        path: path.to_owned(),
        is_ours: true,
    })
}

fn handed_over() -> io::Result<Option<Vec<Listener>>> {
    let mut sockets = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..sockets.len() {
        // Whether it is of the one kind or of the other is known only by trying.
        if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
            listener.set_nonblocking(true)?;
            listeners.push(Listener::Tcp(TcpListener::from_std(listener)?));
        } else if let Some(listener) = sockets.take_unix_listener(index)? {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            listeners.push(Listener::Unix {
                path: address.as_pathname().unwrap_or(Path::new("")).to_owned(),
                listener: UnixListener::from_std(listener)?,
                is_ours: false,
            });
        }
    }
    Ok((!listeners.is_empty()).then_some(listeners))
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Whether the file goes with it.
        is_ours: bool,
    },
}

impl Listener {
    /// Whether others than this machine can reach it.
    pub(super) fn is_public(&self) -> bool {
        match self {
            Listener::Tcp(listener) => listener
                .local_addr()
                .is_ok_and(|address| !address.ip().is_loopback()),
            Listener::Unix { .. } => false,
        }
    }

    pub(super) fn url(&self, scheme: &str) -> String {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("{scheme}://{address}/"),
                Err(_) => format!("{scheme}://?/"),
            },
            Listener::Unix { path, .. } => format!("{scheme}+unix://{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix {
            path,
            is_ours: true,
            ..
        } = self
        {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (text, shown) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("[::1]:1", "[::1]:1"),
            (":9464", "[::]:9464"),
            ("localhost:0", "localhost:0"),
            ("unix:/run/q", "unix:/run/q,mode=0600"),
            ("unix:/run/q,mode=0660", "unix:/run/q,mode=0660"),
            ("systemd", "systemd"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "9464",
            "host",
            "::1:80",
            "a:b",
            "a:70000",
            "unix:",
            "unix:/a,mode=9",
        ] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("expected 127.0.0.1:9464"), "{error}");
        }
    }
}
