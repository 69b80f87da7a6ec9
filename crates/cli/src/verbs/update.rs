//! `update`: change the limits of containers, also while they run.

use engine::types::UpdateRequest;

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::number::{parse_cpus, parse_int, parse_u16};
use crate::values::opts::parse_restart;
use crate::values::size::{parse_size, parse_swap};

/// Options of `update`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Share of block I/O, 10 to 1000; 0 is the default
    #[arg(long, value_name = "uint16", value_parser = parse_u16)]
    blkio_weight: Option<u16>,
    /// Length of a CPU period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_period: Option<i64>,
    /// CPU time per period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_quota: Option<i64>,
    /// Length of a real-time period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_rt_period: Option<i64>,
    /// Real-time CPU time per period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_rt_runtime: Option<i64>,
    /// Share of CPU time, relative to other containers
    #[arg(long, short = 'c', value_name = "int", value_parser = parse_int)]
    cpu_shares: Option<i64>,
    /// How many CPUs at the most
    #[arg(long, value_name = "decimal", value_parser = parse_cpus)]
    cpus: Option<i64>,
    /// CPUs to run on (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_mems: Option<String>,
    /// Refused: the kernel has no such limit any more
    #[arg(long, value_name = "bytes", hide = true)]
    kernel_memory: Option<String>,
    /// Memory at the most
    #[arg(long, short = 'm', value_name = "bytes", value_parser = parse_size)]
    memory: Option<i64>,
    /// Memory it keeps when the host runs short
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    memory_reservation: Option<i64>,
    /// Memory and swap together at the most; -1 is any amount of swap
    #[arg(long, value_name = "bytes", value_parser = parse_swap)]
    memory_swap: Option<i64>,
    /// Processes and threads at the most; -1 is any number
    #[arg(long, value_name = "int", value_parser = parse_int)]
    pids_limit: Option<i64>,
    /// What to do when it exits: no, on-failure[:n], always, unless-stopped
    #[arg(long, value_name = "string")]
    restart: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "update"], &["update"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Change the limits of containers",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        if self.kernel_memory.is_some() {
            return Err(Failure::new(
                1,
                "--kernel-memory: the kernel has no such limit any more; use --memory",
            )
            .into());
        }
        let restart_policy = self
            .restart
            .as_deref()
            .map(parse_restart)
            .transpose()
            .map_err(|why| Failure::new(1, why))?;
        let request = UpdateRequest {
            cpu_shares: self.cpu_shares,
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            nano_cpus: self.cpus,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_rt_period,
            cpu_realtime_runtime: self.cpu_rt_runtime,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            blkio_weight: self.blkio_weight,
            pids_limit: self.pids_limit,
            restart_policy,
        };
        if request == UpdateRequest::default() {
            return Err(Failure::new(
                1,
                "you must provide one or more flags when using this command",
            )
            .bare()
            .into());
        }
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.update(name, request.clone()) {
                Ok(warnings) => {
                    for warning in warnings {
                        context::note(&format!("WARNING: {warning}"));
                    }
                    context::println(name)?;
                }
                Err(error) => {
                    failed = true;
                    context.complain(&error.into());
                }
            }
        }
        all_or_one(failed)
    }
}
