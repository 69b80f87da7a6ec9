//! The command line of Wherry: `wherry`, and `docker` when it is called by that name.
//!
//! This crate parses, calls the `engine` library, and prints. It knows the terminal and
//! the environment; it knows nothing of how a container is made. Where to start reading:
//!
//! - [`app`]: from the arguments to one verb, without building the definitions of the others
//! - [`verbs`]: a file per verb, each an argument struct and what it does
//! - [`flags`]: how a verb's definition becomes Docker's parsing, messages and help
//! - [`values`]: parsers of option values (sizes, durations, mounts, ports …)
//! - [`output`]: tables, templates, sizes and times for people
//! - [`stream`]: the loop that joins this terminal to a container's streams

mod app;
#[cfg(test)]
mod client_tests;
mod complete;
mod context;
mod door;
mod each;
mod failure;
mod flags;
mod globals;
mod helpers;
mod init;
mod oci;
mod output;
mod registries;
mod registry;
mod stream;
mod target;
mod values;
mod verbs;

use std::io::Write as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let code = init::main(&args)
        .or_else(|| runtime_alone(&args))
        .or_else(|| helpers::main(&args))
        .unwrap_or_else(|| app::main(args));
    // What is written is flushed where it is written, but for what had no newline at its end.
    let _ = std::io::stdout().flush();
    // The kernel takes the memory back as one; the allocator would first give it back in pieces.
    sys::exec::exit_now(code)
}

/// The runtime has a command line of its own, runc's: `wherry oci …`, or this program
/// under a name that ends in `wherry-oci`.
fn runtime_alone(args: &[std::ffi::OsString]) -> Option<u8> {
    let (program, rest) = args.split_first()?;
    let name = std::path::Path::new(program).file_name()?;
    if name.as_encoded_bytes().ends_with(b"wherry-oci") {
        return Some(oci::main(std::iter::once(name.to_owned()).chain(rest.iter().cloned())));
    }
    let (verb, rest) = rest.split_first()?;
    (verb == "oci")
        .then(|| oci::main(std::iter::once("wherry oci".into()).chain(rest.iter().cloned())))
}
