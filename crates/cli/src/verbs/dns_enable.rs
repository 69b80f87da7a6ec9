//! `dns enable`: the host resolves names of containers, too.

use std::net::IpAddr;

use engine::types::HostNamesRequest;

use super::dns_status::print;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address of the host's loopback to listen at; the first free one from 127.0.0.11 on
    #[arg(long, value_name = "ip")]
    address: Option<IpAddr>,
    /// Domain that containers are in (default wherry.internal)
    #[arg(long, value_name = "string")]
    domain: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["dns", "enable"]], "[OPTIONS]", "Have the host resolve names of containers")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let request = HostNamesRequest { address: self.address, domain: self.domain };
        print(&context.local()?.enable_host_names(&request)?)?;
        Ok(0)
    }
}
