//! A socket that receives datagrams.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::TICK;
use super::address::StatsdAddress;

/// So many bytes may wait in the kernel: a burst of a thousand full datagrams.
const WAITING_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub(super) enum Socket {
    Udp {
        socket: UdpSocket,
        /// How `/proc` names it.
        inode: Option<String>,
    },
    Unix {
        socket: UnixDatagram,
        path: PathBuf,
    },
}

impl Socket {
    pub(super) fn bind(address: &StatsdAddress) -> io::Result<Socket> {
        let socket = match address {
            StatsdAddress::Udp(address) => {
                let socket = UdpSocket::bind(address)?;
                socket.set_read_timeout(Some(TICK))?;
                widen(&socket);
                let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
                let inode = link.and_then(|link| {
                    let name = link.to_str()?.strip_prefix("socket:[")?;
                    Some(name.strip_suffix(']')?.to_owned())
                });
                Socket::Udp { socket, inode }
            }
            StatsdAddress::Unix { path, mode } => {
                remove_left_behind(path)?;
                let socket = UnixDatagram::bind(path)?;
                fs::set_permissions(path, PermissionsExt::from_mode(*mode))?;
                socket.set_read_timeout(Some(TICK))?;
                widen(&socket);
                Socket::Unix {
                    socket,
                    path: path.clone(),
                }
            }
        };
        Ok(socket)
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Socket::Udp { socket, .. } => socket
                .local_addr()
                .map_or_else(|_| "udp".to_owned(), |address| address.to_string()),
            Socket::Unix { path, .. } => format!("unix:{}", path.display()),
        }
    }

    /// The next datagram's length; `None` when none came for a while.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        let received = match self {
            Socket::Udp { socket, .. } => socket.recv(buffer),
            Socket::Unix { socket, .. } => socket.recv(buffer),
        };
        match received {
            Ok(len) => Some(len),
            Err(error) => {
                let is_usual = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                );
                if !is_usual {
                    // Whatever it is, it must not keep a core busy.
                    std::thread::sleep(Duration::from_millis(10));
                }
                None
            }
        }
    }

    /// Datagrams that the kernel had no room for. (The sender of a Unix socket waits, or is told.)
    pub(super) fn kernel_drops(&self) -> u64 {
        let Socket::Udp {
            inode: Some(inode), ..
        } = self
        else {
            return 0;
        };
        let of = |file| {
            let table = fs::read_to_string(file).ok()?;
            drops(&table, inode)
        };
        of("/proc/net/udp")
            .or_else(|| of("/proc/net/udp6"))
            .unwrap_or(0)
    }
}

/// The last column of the socket's line in the kernel's table.
fn drops(table: &str, inode: &str) -> Option<u64> {
    let mut lines = table.lines().skip(1).map(|line| line.split_whitespace());
    let mut line = lines.find(|line| line.clone().nth(9) == Some(inode))?;
    line.next_back()?.parse().ok()
}

/// As wide as the system allows: privileged beyond its limit, else up to it.
fn widen(socket: &impl AsFd) {
    if set_socket_recv_buffer_size_force(socket, WAITING_BYTES).is_err() {
        // What is not granted shows in the drops.
        let _ = set_socket_recv_buffer_size(socket, WAITING_BYTES);
    }
}

/// Removes the socket of a process that is gone.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::other(
            "there is a file of that name, which is no socket",
        )),
        Ok(_) => {
            match UnixDatagram::unbound()?.connect(path) {
                // Nobody has it any more.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)
                }
                Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
                // Another user's, say: it may well be in use.
                Err(error) => Err(error),
            }
        }
        Err(_) => Ok(()),
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Socket::Unix { path, .. } = self {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_by_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
            uid  timeout inode ref pointer drops\n\
            101: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000     \
            0        0 4711 2 0000000000000000 17\n";
        assert_eq!(drops(table, "4711"), Some(17));
        assert_eq!(drops(table, "471"), None);
        assert_eq!(drops("", "4711"), None);
    }
}
