//! The whole command line as one definition, for what is generated from it.

use clap::{Arg, ArgAction, Command};

use crate::registry::{GROUPS, VERBS};

/// Every verb in every spelling, below a command of this name.
pub(crate) fn whole(program: &'static str) -> Command {
    let mut root = Command::new(program)
        .about("Containers without a daemon")
        .version(crate::app::VERSION)
        .disable_help_subcommand(true)
        .disable_version_flag(true);
    for option in crate::globals::ALL {
        let arg = Arg::new(option.long).long(option.long).help(option.about);
        let arg = match option.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        root = root.arg(match option.value {
            Some(value) => arg.value_name(value),
            None => arg.action(ArgAction::SetTrue),
        });
    }
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
