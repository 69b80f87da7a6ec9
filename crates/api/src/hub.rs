//! Who waits for what happens: one thread reads the events, and any number of tasks hear of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::types::Event;
use engine::{EventOptions, Filters};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};

use crate::work::Work;

/// Events that one who is slow may be behind; then it looks for itself.
const BEHIND: usize = 4096;

/// See the module.
#[derive(Clone)]
pub(crate) struct Hub {
    send: Sender<Arc<Event>>,
    running: Arc<Mutex<bool>>,
    work: Work,
}

/// One who hears.
pub(crate) struct Listener(Receiver<Arc<Event>>);

impl Listener {
    /// The next event; `None`: some were missed, look for yourself.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            // Never closed: the hub holds a sender. It would be no reason to spin.
            Err(RecvError::Closed) => std::future::pending().await,
            Err(RecvError::Lagged(_)) => None,
        }
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Hub {
    pub(crate) fn new(work: Work) -> Self {
        Self { send: broadcast::channel(BEHIND).0, running: Arc::default(), work }
    }

    /// Hears everything that happens from now on.
    pub(crate) fn listen(&self) -> Listener {
        let listener = Listener(self.send.subscribe());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !*running {
            let (hub, since) = (self.clone(), now());
            let spawned = std::thread::Builder::new()
                .name("events".into())
                .spawn(move || hub.read_for_ever(since));
            // Without it the listeners only look now and then.
            *running = spawned.is_ok();
        }
        listener
    }

    fn read_for_ever(&self, mut since: i64) {
        loop {
            let options = EventOptions { since: Some(since), until: None, filters: Filters::new() };
            let ended: Result<(), engine::Error> = self.work.here(|engine| {
                engine.events(options, &mut |event| {
                    since = event.time_nano.saturating_add(1);
                    // Nobody listening is no reason to stop.
                    let _ = self.send.send(Arc::new(event));
                    true
                })
            });
            drop(ended);
            // A full disk, a damaged file: tried again until it is mended.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
