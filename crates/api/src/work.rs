//! Where the engine works: a pool of engines on a bounded pool of threads.

use std::sync::{Arc, Mutex, PoisonError};

use engine::{Engine, EngineOptions};

use crate::answer::Failure;

/// Engines that nobody uses right now. One engine is for one thread at a time; opening one is cheap, and
/// keeping it open saves the opening of the database.
#[derive(Clone)]
pub(crate) struct Work {
    options: Arc<EngineOptions>,
    idle: Arc<Mutex<Vec<Engine>>>,
}

/// So many engines are kept open.
const KEPT: usize = 16;

impl Work {
    pub(crate) fn new(options: EngineOptions) -> Self {
        Self { options: Arc::new(options), idle: Arc::default() }
    }

    fn take(&self) -> Result<Engine, engine::Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Engine::open((*self.options).clone()), Ok)
    }

    fn give_back(&self, engine: Engine) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(engine);
        }
    }

    /// Does something with an engine on the calling thread, which may block.
    pub(crate) fn here<T, E: From<engine::Error>>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, E>,
    ) -> Result<T, E> {
        let engine = self.take()?;
        let result = work(&engine);
        self.give_back(engine);
        result
    }

    /// Does something with an engine on a thread of the pool.
    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: From<engine::Error> + Into<Failure> + Send + 'static,
        F: FnOnce(&Engine) -> Result<T, E> + Send + 'static,
    {
        let own = self.clone();
        match tokio::task::spawn_blocking(move || own.here(work)).await {
            Ok(result) => result.map_err(Into::into),
            Err(e) => Err(Failure::new(
                hyper::StatusCode::INTERNAL_SERVER_ERROR,
                format!("the request's work was given up: {e}"),
            )),
        }
    }

    /// As [`Work::run`], for what fails only as the engine does.
    pub(crate) async fn ask<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Engine) -> Result<T, engine::Error> + Send + 'static,
    {
        self.run::<T, engine::Error, F>(work).await
    }
}
