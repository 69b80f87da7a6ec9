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
mod failure;
mod flags;
mod helpers;
mod output;
mod registry;
mod stream;
mod values;
mod verbs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // Doors with a command line of their own come here, before anything of ours is parsed:
    // if args.get(1).is_some_and(|a| a == "oci") { return oci::main(args) }
    if let Some(code) = helpers::main(&args) {
        return code;
    }
    app::main(args)
}
