//! The table of verbs: how each is spelled, and what builds and runs it.
//!
//! Only the verb that was asked for gets its definition built; a command that does
//! little should not pay for the options of the others.

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::verbs;

/// One verb: its arguments, what its help says, what it does.
pub(crate) trait Verb: clap::Args {
    /// What its help says.
    const SPEC: Spec;
    /// Does it.
    fn run(self, context: &Context) -> Outcome;
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// What its help says.
    pub(crate) spec: Spec,
    build: fn() -> Command,
    run: fn(&Context, &mut ArgMatches) -> Outcome,
}

impl Entry {
    const fn of<V: Verb>() -> Self {
        Self { spec: V::SPEC, build: build::<V>, run: run::<V> }
    }

    /// Its definition.
    pub(crate) fn command(&self) -> Command {
        crate::flags::prepare((self.build)(), &self.spec)
    }

    /// Does it.
    pub(crate) fn run(&self, context: &Context, matches: &mut ArgMatches) -> Outcome {
        (self.run)(context, matches)
    }
}

fn build<V: Verb>() -> Command {
    let name = V::SPEC.paths.first().and_then(|p| p.last()).copied().unwrap_or("wherry");
    V::augment_args(Command::new(name))
}

fn run<V: Verb>(context: &Context, matches: &mut ArgMatches) -> Outcome {
    V::from_arg_matches_mut(matches)?.run(context)
}

/// Groups of verbs.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage the build cache"),
    ("config", "Look at the settings"),
    ("context", "Manage what is known of engines elsewhere"),
    ("container", "Manage containers"),
    ("dns", "Have the host resolve names of containers"),
    ("image", "Manage images"),
    ("manifest", "Look at manifests in registries"),
    ("network", "Manage networks"),
    ("storage", "Manage how images are kept"),
    ("system", "Manage the engine"),
    ("volume", "Manage volumes"),
];

/// Verbs shown first in the help.
pub(crate) const COMMON: &[&str] = &[
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version",
    "info",
];

/// Every verb.
pub(crate) const VERBS: &[Entry] = &[
    Entry::of::<verbs::attach::Args>(),
    Entry::of::<verbs::build::Args>(),
    Entry::of::<verbs::builder_du::Args>(),
    Entry::of::<verbs::builder_prune::Args>(),
    Entry::of::<verbs::commit::Args>(),
    Entry::of::<verbs::completion::Args>(),
    Entry::of::<verbs::config_show::Args>(),
    Entry::of::<verbs::container_inspect::Args>(),
    Entry::of::<verbs::container_prune::Args>(),
    Entry::of::<verbs::context_create::Args>(),
    Entry::of::<verbs::context_export::Args>(),
    Entry::of::<verbs::context_import::Args>(),
    Entry::of::<verbs::context_inspect::Args>(),
    Entry::of::<verbs::context_ls::Args>(),
    Entry::of::<verbs::context_rm::Args>(),
    Entry::of::<verbs::context_show::Args>(),
    Entry::of::<verbs::context_update::Args>(),
    Entry::of::<verbs::context_use::Args>(),
    Entry::of::<verbs::cp::Args>(),
    Entry::of::<verbs::create::Args>(),
    Entry::of::<verbs::diff::Args>(),
    Entry::of::<verbs::dns_disable::Args>(),
    Entry::of::<verbs::dns_enable::Args>(),
    Entry::of::<verbs::dns_status::Args>(),
    Entry::of::<verbs::doctor::Args>(),
    Entry::of::<verbs::events::Args>(),
    Entry::of::<verbs::exec::Args>(),
    Entry::of::<verbs::export::Args>(),
    Entry::of::<verbs::history::Args>(),
    Entry::of::<verbs::image_copy::Args>(),
    Entry::of::<verbs::image_inspect::Args>(),
    Entry::of::<verbs::image_prune::Args>(),
    Entry::of::<verbs::images::Args>(),
    Entry::of::<verbs::import::Args>(),
    Entry::of::<verbs::info::Args>(),
    Entry::of::<verbs::inspect::Args>(),
    Entry::of::<verbs::kill::Args>(),
    Entry::of::<verbs::load::Args>(),
    Entry::of::<verbs::login::Args>(),
    Entry::of::<verbs::logout::Args>(),
    Entry::of::<verbs::logs::Args>(),
    Entry::of::<verbs::man::Args>(),
    Entry::of::<verbs::manifest_inspect::Args>(),
    Entry::of::<verbs::network_connect::Args>(),
    Entry::of::<verbs::network_create::Args>(),
    Entry::of::<verbs::network_disconnect::Args>(),
    Entry::of::<verbs::network_inspect::Args>(),
    Entry::of::<verbs::network_ls::Args>(),
    Entry::of::<verbs::network_prune::Args>(),
    Entry::of::<verbs::network_repair::Args>(),
    Entry::of::<verbs::network_rm::Args>(),
    Entry::of::<verbs::pause::Args>(),
    Entry::of::<verbs::port::Args>(),
    Entry::of::<verbs::ps::Args>(),
    Entry::of::<verbs::pull::Args>(),
    Entry::of::<verbs::push::Args>(),
    Entry::of::<verbs::rename::Args>(),
    Entry::of::<verbs::restart::Args>(),
    Entry::of::<verbs::rm::Args>(),
    Entry::of::<verbs::rmi::Args>(),
    Entry::of::<verbs::run::Args>(),
    Entry::of::<verbs::save::Args>(),
    Entry::of::<verbs::search::Args>(),
    Entry::of::<verbs::serve::Args>(),
    Entry::of::<verbs::start::Args>(),
    Entry::of::<verbs::stats::Args>(),
    Entry::of::<verbs::stop::Args>(),
    Entry::of::<verbs::storage_migrate::Args>(),
    Entry::of::<verbs::system_boot::Args>(),
    Entry::of::<verbs::system_df::Args>(),
    Entry::of::<verbs::system_dial_stdio::Args>(),
    Entry::of::<verbs::system_prune::Args>(),
    Entry::of::<verbs::tag::Args>(),
    Entry::of::<verbs::top::Args>(),
    Entry::of::<verbs::unpause::Args>(),
    Entry::of::<verbs::update::Args>(),
    Entry::of::<verbs::version::Args>(),
    Entry::of::<verbs::volume_create::Args>(),
    Entry::of::<verbs::volume_inspect::Args>(),
    Entry::of::<verbs::volume_ls::Args>(),
    Entry::of::<verbs::volume_prune::Args>(),
    Entry::of::<verbs::volume_rm::Args>(),
    Entry::of::<verbs::wait::Args>(),
];

/// Verbs of the `oci` command: spelled here for the help only, parsed elsewhere.
pub(crate) const OCI: (&str, &str) =
    ("oci", "The container runtime alone, with runc's command line");

/// The verb spelled like this, and how many words that took.
pub(crate) fn find(words: &[&str]) -> Option<(&'static Entry, usize)> {
    for length in [2, 1] {
        let Some(start) = words.get(..length) else { continue };
        if let Some(entry) = VERBS.iter().find(|e| e.spec.paths.contains(&start)) {
            return Some((entry, length));
        }
    }
    None
}
