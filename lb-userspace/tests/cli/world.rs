//! A socket with a fake agent behind it, and `lb` to talk to it.

use crate::fake::Fake;
use lb_userspace::api::server;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A fake agent on a socket of its own. Ends with the test.
pub(crate) struct World {
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a run of `lb` left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Fake::default())
    }

    pub(crate) fn with(fake: Fake) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("run/lb.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = server::bind(&path).unwrap();
                ready.send(()).unwrap();
                let stopped = async { stopped.await.unwrap_or(()) };
                server::serve(socket, Arc::new(fake), stopped).await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        Self { directory, stop: Some(stop), thread: Some(thread) }
    }

    /// A world with a service `web` of two backends.
    pub(crate) fn with_web() -> Self {
        let world = Self::new();
        let added = world.lb(
            "service add web tcp://192.0.2.10:443 --backend 10.0.0.11:8443 --backend 10.0.0.12:8443,weight=50",
        );
        assert_eq!(added.code, 0, "{added:?}");
        world
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/lb.sock")
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
        command.arg("--socket").arg(self.socket()).args(arguments.split_whitespace());
        command.env("LB_PINS", self.directory.path().join("no-pins"));
        command.env_remove("LB_SOCKET").env_remove("LB_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    /// Runs `lb` with arguments that have no spaces in them.
    pub(crate) fn lb(&self, arguments: &str) -> Ran {
        run(&mut self.command(arguments))
    }

    pub(crate) fn json(&self, arguments: &str) -> serde_json::Value {
        let ran = self.lb(&format!("-o json {arguments}"));
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
    }
}

pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
            assert!(!self.socket().exists(), "the socket's file stayed");
        }
    }
}
