//! The whole command line as one definition, for what is generated from it.

use clap::{Arg, ArgAction, Command};

use crate::registry::{GROUPS, VERBS};

/// Every verb in every spelling, below a command of this name.
pub(crate) fn whole(program: &'static str) -> Command {
    let value = |name: &'static str, kind: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(kind).help(help)
    };
    let mut root = Command::new(program)
        .about("Containers without a daemon")
        .version(crate::app::VERSION)
        .disable_help_subcommand(true)
        .arg(value("config", "file", "Settings file"))
        .arg(value("data-root", "dir", "Where images, containers and volumes are kept"))
        .arg(value("run-root", "dir", "Where sockets and state of this boot are kept"))
        .arg(value("log-level", "string", "How much to say").short('l'))
        .arg(
            Arg::new("debug")
                .long("debug")
                .short('D')
                .action(ArgAction::SetTrue)
                .help("Say more about what is done"),
        );
    for (group, about) in GROUPS {
        let mut command = Command::new(*group).about(*about).disable_help_subcommand(true);
        for entry in VERBS {
            for path in entry.spec.paths {
                if let [first, verb] = path
                    && first == group
                {
                    command = command.subcommand(named(entry, verb));
                }
            }
        }
        root = root.subcommand(command);
    }
    for entry in VERBS {
        for path in entry.spec.paths {
            if let [verb] = path
                && !GROUPS.iter().any(|(group, _)| group == verb)
            {
                root = root.subcommand(named(entry, verb));
            }
        }
    }
    root
}

fn named(entry: &crate::registry::Entry, verb: &'static str) -> Command {
    let usage = entry.spec.usage;
    entry
        .command()
        .name(verb)
        .about(entry.spec.about)
        .hide(entry.spec.hidden)
        .override_usage(format!("{verb} {usage}").trim().to_owned())
}
