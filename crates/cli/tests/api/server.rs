//! `wherry serve` for one test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::harness::{Engine, until};

/// An engine whose API is served. Dropping it ends the server.
pub(crate) struct Served {
    pub(crate) engine: Engine,
    child: Child,
}

impl Served {
    /// Serves an engine with the image `bb`.
    pub(crate) fn new() -> Self {
        let engine = Engine::new();
        let child = Self::spawn(&engine);
        Self { engine, child }
    }

    fn spawn(engine: &Engine) -> Child {
        let socket = engine.path("api.sock");
        let host = format!("unix://{}", socket.display());
        let log = std::fs::File::create(engine.path("serve.log")).unwrap();
        let child = engine
            .command()
            .args(["serve", "-H", &host])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        until("the socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        child
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.engine.path("api.sock")
    }

    /// The server's process; the namespace's program became it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and another one.
    pub(crate) fn restart(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.engine);
    }

    /// A program with `DOCKER_HOST` set.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.engine.path("docker-config"))
            .env("WHERRY_TEST_DIRECTORY", &self.engine.dir)
            .stdin(Stdio::null());
        command
    }

    /// Ends the server and checks that nothing is left.
    pub(crate) fn finish(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = std::fs::read_to_string(self.engine.path("serve.log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        let Served { engine, .. } = &mut self;
        let engine = std::mem::replace(engine, Engine::empty());
        engine.finish();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
