//! Processes of the engine that are started from this program: the keeper, which holds
//! running containers, the steward, which does what follows from a container's end, and the name
//! server of containers' networks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use engine::settings::{Flags, Settings};
use engine::trace::Recorder;
use engine::{Engine, EngineOptions, helper_args};

/// Runs the helper that the first argument names; `None`: it names none.
pub(crate) fn main(args: &[OsString]) -> Option<u8> {
    let verb = args.get(1)?.to_str()?;
    if !matches!(verb, engine::foreign::MOUNTED | "__keeper" | "__steward" | "__names") {
        return None;
    }
    // Whoever starts us may hear of signals in another way, as a build does; we end by them.
    sys::signal::unblock_all();
    if verb == engine::foreign::MOUNTED {
        let error = engine::foreign::mounted(args.get(2..).unwrap_or_default());
        crate::context::note(&format!("wherry {verb}: {error}"));
        return Some(1);
    }
    // What a script had open when it ran a container, a lock perhaps, is not held until its last container ends.
    if let Err(e) = sys::fds::close_inherited(3) {
        crate::context::note(&format!("wherry {verb}: descriptors left open: {e}"));
    }
    let done = options(args).and_then(|options| match verb {
        "__keeper" => {
            let steward = helper_args(&options, "__steward");
            // Kept by the keeper and all it forks; nothing depends on it but speed.
            let _index = store::hold_log_index(&options.data_root);
            Ok(keeper::main(&options.run_root, &options.program, steward)?)
        }
        // An engine that was removed meanwhile is not to be made again.
        _ if !options.data_root.is_dir() || !options.run_root.is_dir() => Ok(()),
        "__names" => Ok(Engine::open(options)?.name_server()?),
        _ => Ok(Engine::open(options)?.steward()?),
    });
    Some(match done {
        Ok(()) => 0,
        Err(error) => {
            crate::context::note(&format!("wherry {verb}: {error:#}"));
            1
        }
    })
}

fn options(args: &[OsString]) -> anyhow::Result<EngineOptions> {
    let path = |i: usize| args.get(i).map(PathBuf::from);
    let (Some(data_root), Some(run_root), Some(program)) = (path(2), path(3), path(4)) else {
        anyhow::bail!("three paths are expected: data root, run root, program");
    };
    let flags = Flags {
        data_root: Some(data_root.clone()),
        run_root: Some(run_root.clone()),
        ..Flags::default()
    };
    let environment: BTreeMap<String, OsString> = crate::context::environment();
    // A settings file that has become unreadable must not keep containers from ending.
    let settings = Settings::load(&environment, &flags).unwrap_or_else(|_| Settings {
        data_root: data_root.clone(),
        run_root: run_root.clone(),
        ..Settings::default()
    });
    Ok(EngineOptions {
        data_root,
        run_root,
        program,
        settings,
        debug: None,
        trace: Recorder::default(),
    })
}
