//! The binary `wherry`.

mod oci;

use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_else(|| OsString::from("wherry"));
    let base = std::path::Path::new(&name).file_name().unwrap_or(&name).to_owned();
    if base.as_encoded_bytes().ends_with(b"wherry-oci") {
        return oci::main(std::iter::once(base).chain(args));
    }
    let rest: Vec<OsString> = args.collect();
    match rest.split_first() {
        Some((verb, rest)) if verb == "oci" => {
            let program = std::iter::once(OsString::from("wherry oci"));
            oci::main(program.chain(rest.iter().cloned()))
        }
        _ => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "wherry: the only verb of this build is \"oci\"");
            ExitCode::from(125)
        }
    }
}
