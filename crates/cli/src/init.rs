//! The init program of containers with `--init`: this binary, mounted into the container
//! as `/sbin/docker-init`, as the first process.
//!
//! It starts the command, passes signals on to it, takes in every process that ends, and
//! ends as the command does.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::process::{Pid, WaitOptions};

/// SIGCHLD; the same on every architecture we build for.
const CHLD: i32 = 17;
/// Signals that are passed on: all that can be blocked, but for those that tell of a
/// fault of our own (SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV) and of the terminal
/// (SIGTTIN, SIGTTOU).
fn passed_on() -> Vec<i32> {
    (1..=64).filter(|s| ![4, 5, 7, 8, 9, 11, 19, 21, 22, 32, 33].contains(s)).collect()
}

/// Runs as init if called by that name. `None`: this is something else.
pub(crate) fn main(args: &[OsString]) -> Option<u8> {
    let (program, rest) = args.split_first()?;
    let name = std::path::Path::new(program).file_name()?;
    if name != "docker-init" || rustix::process::getpid().as_raw_nonzero().get() != 1 {
        return None;
    }
    let rest = match rest {
        [dashes, rest @ ..] if dashes == "--" => rest,
        rest => rest,
    };
    let (command, arguments) = rest.split_first()?;
    Some(run(command, arguments))
}

fn run(command: &OsString, arguments: &[OsString]) -> u8 {
    let complain = |what: &str, e: &dyn std::fmt::Display| {
        let _ = writeln!(std::io::stderr(), "init: {what}: {e}");
    };
    let signals = match sys::signal::block_and_watch(&passed_on()) {
        Ok(fd) => fd,
        Err(e) => {
            complain("cannot watch for signals", &e);
            return 125;
        }
    };
    let mut command_line = Command::new(command);
    let child = match sys::signal::unblocked(command_line.args(arguments)).spawn() {
        Ok(child) => child,
        Err(e) => {
            complain(&format!("exec: \"{}\"", command.display()), &e);
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            return if missing { 127 } else { 126 };
        }
    };
    let Ok(pid) = i32::try_from(child.id()) else { return 125 };
    loop {
        match sys::signal::next(signals.as_fd()) {
            Ok(Some(CHLD)) => {
                if let Some(code) = reap(pid) {
                    return code;
                }
            }
            Ok(Some(signal)) => {
                // It may have ended just now; then SIGCHLD follows.
                if let Ok(pidfd) = sys::clone::pidfd_open(pid) {
                    let _ = sys::pidfd::send_signal(pidfd.as_fd(), signal);
                }
            }
            Ok(None) => {
                let mut ready =
                    [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
                let _ = rustix::event::poll(&mut ready, None);
            }
            Err(e) => {
                complain("cannot read signals", &e);
                return 125;
            }
        }
    }
}

/// Takes in all that have ended; the exit code if the command is among them.
fn reap(command: i32) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Pid::from_raw(command) == Some(pid) {
            let status = std::process::ExitStatus::from_raw(status.as_raw());
            let number = status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(255);
            code = Some(u8::try_from(number & 0xff).unwrap_or(255));
        }
    }
    code
}
