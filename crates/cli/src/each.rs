//! One thing done to each of several containers: to many at the same time, as most of it is waiting, and
//! told in the order in which they were named.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::{Outcome, all_or_one};

/// How many at the same time.
const AT_ONCE: usize = 16;

/// What an error means for the verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is as it should be: said like a success.
    Done,
    /// Told, and no failure.
    Told,
    /// Told; the verb's exit code is 1.
    Failed,
}

/// Does `act` to each, prints the names of those for which it worked and complains about the others.
pub(crate) fn each(
    context: &Context,
    names: &[String],
    act: impl Fn(&Door, &str) -> engine::Result<()> + Sync,
    verdict: impl Fn(&engine::Error) -> Verdict,
) -> Outcome {
    let mut failed = false;
    let mut tell = |name: &str, result: engine::Result<()>| -> std::io::Result<()> {
        let Err(error) = result else { return context::println(name) };
        match verdict(&error) {
            Verdict::Done => return context::println(name),
            Verdict::Told => {}
            Verdict::Failed => failed = true,
        }
        context.complain(&error.into());
        Ok(())
    };
    let opener = context.opener()?;
    // An engine that can't be opened is one error, not one of each name.
    let first = opener.open()?;
    if let [name] = names {
        tell(name, act(&first, name))?;
        return all_or_one(failed);
    }
    drop(first);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| -> std::io::Result<()> {
        let (send, results) = mpsc::channel();
        for _ in 0..names.len().min(AT_ONCE) {
            let (send, opener, next, act) = (send.clone(), &opener, &next, &act);
            scope.spawn(move || {
                let door = opener.open();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(at) else { return };
                    let result = match &door {
                        Ok(door) => act(door, name),
                        Err(error) => {
                            Err(engine::Error::system("opening the engine", error.to_string()))
                        }
                    };
                    if send.send((at, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut waiting = std::collections::BTreeMap::new();
        let mut names = names.iter().enumerate().peekable();
        for (at, result) in results {
            waiting.insert(at, result);
            while let Some((at, name)) = names.peek()
                && let Some(result) = waiting.remove(at)
            {
                tell(name, result)?;
                names.next();
            }
        }
        Ok(())
    })?;
    all_or_one(failed)
}
