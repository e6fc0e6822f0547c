//! Where the runtime listens.
//!
//! Owns the presets and the choice among them, made anew for each connection: a runtime that comes up later, or comes up
//! elsewhere, is found.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Tried in this order when no socket is configured.
pub const PRESETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
];

/// The sockets a connection is tried on, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets(Vec<PathBuf>);

impl Sockets {
    /// The configured socket alone, as a path or as `unix://` and a path; without one the presets.
    pub fn new(configured: Option<&str>) -> Self {
        match configured {
            Some(socket) => Self(vec![PathBuf::from(socket.strip_prefix("unix://").unwrap_or(socket))]),
            None => Self(PRESETS.iter().map(PathBuf::from).collect()),
        }
    }

    /// Connects to the first that answers.
    pub(super) async fn connect(&self) -> Result<TokioIo<UnixStream>, Unreachable> {
        let mut tried = Vec::new();
        for path in &self.0 {
            match UnixStream::connect(path).await {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => tried.push((path.clone(), error)),
            }
        }
        Err(Unreachable(tried))
    }
}

/// No socket answers.
#[derive(Debug)]
pub(super) struct Unreachable(Vec<(PathBuf, io::Error)>);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no container runtime answers; tried ")?;
        for (at, (path, error)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({error})", path.display())?;
        }
        f.write_str("; mount the runtime's socket into the agent's pod, or name it in `runtime.socket`")
    }
}

impl Error for Unreachable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_socket_is_tried_alone_and_may_be_a_url() {
        let path = Sockets::new(Some("/run/x.sock"));
        assert_eq!(path, Sockets(vec![PathBuf::from("/run/x.sock")]));
        assert_eq!(Sockets::new(Some("unix:///run/x.sock")), path);
        assert_eq!(Sockets::new(None).0.len(), PRESETS.len());
    }

    #[tokio::test]
    async fn the_error_names_every_path_with_its_cause_and_what_to_do() {
        let sockets = Sockets(vec![PathBuf::from("/nonexistent/a.sock"), PathBuf::from("/nonexistent/b.sock")]);
        let text = sockets.connect().await.unwrap_err().to_string();
        assert_eq!(
            text,
            "no container runtime answers; tried /nonexistent/a.sock (No such file or directory (os error 2)), \
             /nonexistent/b.sock (No such file or directory (os error 2)); mount the runtime's socket into the agent's \
             pod, or name it in `runtime.socket`"
        );
    }

    #[tokio::test]
    async fn the_first_that_answers_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.sock");
        let _listener = tokio::net::UnixListener::bind(&there).unwrap();
        Sockets(vec![folder.path().join("absent.sock"), there]).connect().await.unwrap();
    }
}
