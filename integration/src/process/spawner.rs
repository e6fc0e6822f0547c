//! The one thread that forks: the kernel's "die with your parent" means the *thread* that forked, so that must be one
//! which lives as long as the process. It owns nothing of the children.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

type Request = (Command, Sender<io::Result<Child>>);

/// Starts `command` from the long-living thread.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static REQUESTS: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let requests = REQUESTS.get_or_init(|| {
        let (sender, receiver) = channel::<Request>();
        // Never joined: it ends with the process.
        std::thread::spawn(move || {
            for (mut command, reply) in receiver {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    requests.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
