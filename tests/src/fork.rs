//! Processes as programs make them by themselves: forks, clones and daemons.

use std::io;

/// More descriptors than anybody here has.
const DESCRIPTORS: libc::c_uint = 1024;

/// A fork; 0 in the child.
pub fn fork() -> io::Result<i32> {
    // SAFETY: the child goes on in this one thread, with what a forked child may use: the libraries
    // under test promise no less, and glibc's allocator is usable after a fork.
    checked(unsafe { libc::fork() })
}

/// A fork of which the C library knows nothing.
pub fn raw_clone() -> io::Result<i32> {
    let none = 0_usize;
    // SAFETY: without flags, clone(2) is a fork: nothing is shared, and a null stack is a copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none) };
    checked(pid as i32)
}

fn checked(pid: i32) -> io::Result<i32> {
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pid)
}

/// Waits for a child; what it ended with, as wait(2) has it.
pub fn await_child(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

/// Whether there is a child that lives.
pub fn has_child() -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) == 0 }
}

/// Ends the process as a kill would: no destructor runs, and nothing that waits for its exit.
pub fn exit_at_once(status: i32) -> ! {
    // SAFETY: it ends the process.
    unsafe { libc::_exit(status) }
}

/// Begins a session, as daemons do.
pub fn begin_session() {
    // SAFETY: no memory is passed.
    unsafe { libc::setsid() };
}

/// Closes all descriptors but standard input, output and error, as daemons do: those that the
/// process opened, and those that the bus did.
pub fn close_descriptors() {
    // SAFETY: who calls this uses none of them again, but the bus.
    unsafe { libc::close_range(3, DESCRIPTORS, 0) };
}
