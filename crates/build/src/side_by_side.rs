//! Stages that do not need each other, at the same time.
//!
//! Each stage has a thread with an engine of its own. What happens is told by one thread, the caller's: the others
//! send it. When one fails or the build is given up, the others' commands are ended.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use oci::DiffId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Error, Result, io};
use crate::job::Job;
use crate::language::instruction::Instruction;
use crate::plan::{Base, Origin, PlannedStage, origin};
use crate::progress::{Event, Progress};
use crate::stage::Stage;
use crate::tree::{Known, Tree};

/// What a stage's thread has made.
struct Made {
    stage: Stage,
    known: Known,
    used: Vec<String>,
    keys: Vec<String>,
    mounts: BTreeSet<String>,
    done: usize,
    steps: Vec<(String, DiffId)>,
}

/// What a thread tells.
enum Told {
    Event(Event),
    End(usize, Box<Result<Made>>),
    /// Somebody asked for the build to end.
    GivenUp,
}

/// The reports of a stage's thread.
struct Teller {
    send: Sender<Told>,
    /// Hung up when the build is to end.
    ended: OwnedFd,
}

impl Progress for Teller {
    fn event(&mut self, event: Event) {
        // The other end lives as long as the build.
        let _ = self.send.send(Told::Event(event));
    }

    fn begin_command(&mut self) -> Option<OwnedFd> {
        self.ended.try_clone().ok()
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(io(|| "making a pipe".to_owned()))
}

impl<'a> Job<'a> {
    /// Does all stages of the plan.
    pub(crate) fn side_by_side(&mut self) -> Result<()> {
        self.fetch_images()?;
        // From here on signals are heard of between the steps, by all threads.
        let watch = self.progress.begin_command();
        let done = self.with_threads(watch.as_ref());
        self.progress.end_command();
        done
    }

    /// Fetches what is not here, before there are threads, so that a fetch can be ended as always.
    fn fetch_images(&mut self) -> Result<()> {
        let plan = self.plan;
        for planned in &plan.stages {
            let Some(source) = plan.file.stages.get(planned.index) else { continue };
            let mut wanted = Vec::new();
            if let Base::Image(image) = &planned.base {
                wanted.push((image.clone(), planned.platform.clone(), source.span));
            }
            for step in &source.steps {
                let froms: Vec<&str> = match &step.instruction {
                    Instruction::Copy(copy) => copy.from.as_deref().into_iter().collect(),
                    Instruction::Run(run) => {
                        run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect()
                    }
                    _ => Vec::new(),
                };
                for from in froms {
                    if let Ok(Origin::Image(image)) =
                        origin(&plan.file, from, planned.index, self.options)
                    {
                        wanted.push((image, self.options.platform.clone(), step.span));
                    }
                }
            }
            for (image, platform, span) in wanted {
                let platform = platform.as_deref();
                if !self.options.pull
                    && self.lock.is_none()
                    && self.engine.build_base(&image, platform)?.is_some()
                {
                    continue;
                }
                self.begin(format!("fetch {image}"));
                if let Err(error) = self.image_named(&image, platform) {
                    self.failed();
                    return Err(self.locate(span, error));
                }
                self.finished();
            }
        }
        Ok(())
    }

    fn with_threads(&mut self, watch: Option<&OwnedFd>) -> Result<()> {
        let stop = self.stop.clone();
        let (ended, end) = pipe()?;
        let mut end = Some(end);
        // Tells the watching thread that there is nothing to watch any more.
        let (over, all_over) = pipe()?;
        let (send, receive) = channel();
        std::thread::scope(|scope| {
            // Dropped before the threads are waited for, however this ends.
            let _all_over = all_over;
            if let Some(watch) = watch {
                let (send, over) = (send.clone(), &over);
                scope.spawn(move || {
                    let mut fds =
                        [PollFd::new(watch, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
                    while poll(&mut fds, None).is_err() {}
                    if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
                        let _ = send.send(Told::GivenUp);
                    }
                });
            }
            let mut waiting: Vec<&PlannedStage> = self.plan.stages.iter().collect();
            let mut made: BTreeMap<usize, Made> = BTreeMap::new();
            let mut running = 0usize;
            let mut failure: Option<Error> = None;
            loop {
                while failure.is_none() && running < self.options.jobs {
                    let ready = |stage: &&PlannedStage| {
                        stage.needs.iter().all(|need| made.contains_key(need))
                    };
                    let Some(at) = waiting.iter().position(ready) else { break };
                    let planned = waiting.remove(at);
                    let started = ended
                        .try_clone()
                        .map_err(io(|| "making a pipe".to_owned()))
                        .and_then(|ended| {
                            self.worker(planned, &made, Teller { send: send.clone(), ended })
                        });
                    match started {
                        Ok(work) => {
                            running = running.saturating_add(1);
                            scope.spawn(work);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
                if running == 0 {
                    break;
                }
                // `send` is here, so that it does not fail.
                let Ok(told) = receive.recv() else { break };
                match told {
                    Told::Event(event) => self.progress.event(event),
                    Told::End(index, result) => {
                        running = running.saturating_sub(1);
                        match *result {
                            Ok(one) => {
                                made.insert(index, one);
                            }
                            // What the others say after the first one is its consequence.
                            Err(error) => {
                                failure.get_or_insert(error);
                                stop.set();
                                end = None;
                            }
                        }
                    }
                    Told::GivenUp => {
                        failure.get_or_insert(Error::GivenUp);
                        stop.set();
                        end = None;
                    }
                }
            }
            drop(end);
            // In the order of the file, whoever was faster.
            for (index, one) in made {
                self.known.learn(one.known);
                self.used.extend(one.used);
                self.keys.extend(one.keys);
                self.mounts.extend(one.mounts);
                self.done = self.done.saturating_add(one.done);
                self.steps.extend(one.steps);
                self.stages.insert(index, one.stage);
            }
            failure.map_or(Ok(()), Err)
        })
    }

    /// What the thread of a stage does.
    fn worker(
        &self,
        planned: &'a PlannedStage,
        made: &BTreeMap<usize, Made>,
        mut teller: Teller,
    ) -> Result<impl FnOnce() + Send + 'a> {
        let engine = self.engine.another()?;
        let mut context = self.context.as_ref().map(Tree::try_clone).transpose()?;
        let stop = self.stop.clone();
        if let Some(context) = &mut context {
            context.stop = stop.clone();
        }
        let (client, options, plan, counter) = (self.client, self.options, self.plan, self.counter);
        let (known, imported, lock) = (self.known.clone(), self.imported, self.lock);
        let contexts = self.contexts;
        let images = self.images.clone();
        let stages: BTreeMap<usize, Stage> = planned
            .needs
            .iter()
            .filter_map(|need| Some((*need, made.get(need)?.stage.clone())))
            .collect();
        Ok(move || {
            let send = teller.send.clone();
            let mut job = Job {
                engine: &engine,
                client,
                options,
                plan,
                context,
                known,
                progress: &mut teller,
                counter,
                stop,
                step: 0,
                began: Instant::now(),
                reported: 0,
                used: Vec::new(),
                keys: Vec::new(),
                mounts: BTreeSet::new(),
                contexts,
                imported,
                lock,
                done: 0,
                stages,
                images,
                title: String::new(),
                steps: Vec::new(),
            };
            let result = job.stage(planned).map(|stage| Made {
                stage,
                known: std::mem::take(&mut job.known),
                used: std::mem::take(&mut job.used),
                keys: std::mem::take(&mut job.keys),
                mounts: std::mem::take(&mut job.mounts),
                done: job.done,
                steps: std::mem::take(&mut job.steps),
            });
            let _ = send.send(Told::End(planned.index, Box::new(result)));
        })
    }
}
