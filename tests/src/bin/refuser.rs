//! Runs a program in which the kernel refuses a system call: `test-refuser CALL PROGRAM [ARGUMENT
//! …]`.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};

/// Offsets in `seccomp_data`: the number of the call, and the low half of its second argument.
const NUMBER: u32 = 0;
const SECOND: u32 = 24;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [call, program, arguments @ ..] = args.as_slice() else {
        return Err("expected CALL PROGRAM [ARGUMENT …]".into());
    };
    let (number, error) = match call.as_str() {
        "ofd-locks" => (libc::SYS_fcntl, libc::EINVAL),
        "fallocate" => (libc::SYS_fallocate, libc::EOPNOTSUPP),
        "madvise" => (libc::SYS_madvise, libc::EINVAL),
        "getrandom" => (libc::SYS_getrandom, libc::ENOSYS),
        "membarrier" => (libc::SYS_membarrier, libc::ENOSYS),
        "statx" => (libc::SYS_statx, libc::ENOSYS),
        other => return Err(format!("no such call: {other}").into()),
    };
    let load = |offset| statement(BPF_LD | BPF_W | BPF_ABS, offset);
    // Skips so many statements unless the accumulator is `value`.
    let unless = |value, skip| jump(value, 0, skip);
    let refuse = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | error as u32);
    let allow = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut filter = vec![load(NUMBER)];
    if call == "ofd-locks" {
        // Its commands alone: a program needs the others.
        let commands = [libc::F_OFD_GETLK, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
        filter.extend([unless(number as u32, 5), load(SECOND)]);
        filter.extend([
            jump(commands[0] as u32, 2, 0),
            jump(commands[1] as u32, 1, 0),
            unless(commands[2] as u32, 1),
        ]);
    } else {
        filter.push(unless(number as u32, 1));
    }
    filter.extend([refuse, allow]);
    install(&mut filter)?;
    Err(Command::new(program).args(arguments).exec().into())
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Skips `equal` statements when the accumulator is `value`, else `other`.
fn jump(value: u32, equal: u8, other: u8) -> sock_filter {
    sock_filter {
        code: (BPF_JMP | BPF_JEQ | BPF_K) as u16,
        jt: equal,
        jf: other,
        k: value,
    }
}

fn install(filter: &mut [sock_filter]) -> std::io::Result<()> {
    let program = sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: no memory is passed. It lets a process without privileges install a filter.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel copies the filter, which outlives the call.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
