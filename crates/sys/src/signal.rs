//! Signal dispositions and masks.

use std::os::unix::process::CommandExt as _;

use crate::{Errno, Result, last_errno};

/// Every signal does its default and none is blocked: what a fresh program expects.
pub fn reset() {
    // SAFETY: SIG_DFL is valid for every signal; the calls that fail (SIGKILL, SIGSTOP, the C
    // library's own) change nothing. The mask is a valid empty set.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks the signals and returns a descriptor that reads as `signalfd_siginfo` records.
///
/// Signals that the C library keeps for itself (32 and 33; with musl 34, too) are left out.
pub fn block_and_watch(signals: &[i32]) -> Result<std::os::fd::OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            if !(1..=64).contains(signal) {
                return Err(Errno::INVAL);
            }
            let _ = libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(last_errno());
        }
        crate::check_fd(
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into(),
        )
    }
}

/// No signal is blocked any more. A program inherits what was blocked in the thread that started it.
pub fn unblock_all() {
    // SAFETY: the mask is a valid empty set, initialised by sigemptyset.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// The program that this command will start has no signal blocked, whatever is blocked in who starts it.
pub fn unblocked(command: &mut std::process::Command) -> &mut std::process::Command {
    // SAFETY: all that is called between `fork` and `exec` is `sigprocmask`, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            unblock_all();
            Ok(())
        })
    }
}

/// Whether whoever started this process has it ignore the signal (`nohup`). A blocked signal is heard of all the same.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null action changes nothing; the old one is written to a structure of the right type, which is
    // read only if the call succeeded.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Lets the signals through again; what came meanwhile and was not read takes effect now.
pub fn unblock(signals: &[i32]) -> Result<()> {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            let _ = libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// The next signal from a descriptor of [`block_and_watch`]; `None` when there is none now.
pub fn next(fd: std::os::fd::BorrowedFd<'_>) -> Result<Option<i32>> {
    let mut record = [0u8; 128];
    match rustix::io::read(fd, &mut record) {
        Ok(128) => {
            let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
            Ok(i32::try_from(number).ok())
        }
        Ok(_) => Err(Errno::IO),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the kernel reap this process's children by itself, by ignoring SIGCHLD.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is valid for SIGCHLD.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}
