//! The container runtime of a node whose pods run: owns its process and its configuration, with runc, shim and CNI. The
//! runtime of a node without a kubelet is `containerd`'s.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::machine::Machine;
use crate::containerd::{DISABLED, snapshotter, write_hosts};
use crate::crictl::Crictl;
use crate::parts::{Parts, Tool};
use crate::process::Process;
use crate::run::RunDir;
use crate::system_program;

const READY: Duration = Duration::from_secs(30);

/// Where the runtime's socket is on a node: the place that charts and agents expect.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

/// A running containerd on a machine.
pub struct Runtime {
    process: Process,
    crictl: Crictl,
    socket: PathBuf,
}

impl Runtime {
    /// Starts it; `registry` is the one registry there is, under `name`.
    pub(super) async fn start(
        run: &Arc<RunDir>,
        parts: &Parts,
        machine: &Machine,
        node: &str,
        pods: &str,
        registry: (&str, SocketAddr),
        sandbox: &str,
    ) -> Result<Self> {
        let folder = machine.folder();
        let config = run.write(&format!("{node}/containerd.toml"), configuration(folder, parts.bin(), sandbox)?)?;
        let network = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [{
            "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": pods }]], "routes": [{ "dst": "0.0.0.0/0" }] },
        }]});
        run.write(&format!("{node}/cni/10-pods.conflist"), serde_json::to_vec_pretty(&network)?)?;
        // Every other registry is refused at once: there is no way out of the run's network.
        write_hosts(folder, "_default", SocketAddr::from(([127, 0, 0, 1], 1)))?;
        write_hosts(folder, registry.0, registry.1)?;
        std::fs::create_dir_all(folder.join("run/containerd")).context("the folder of the runtime's socket")?;
        let invocation = machine
            .invocation(format!("containerd-{node}"), parts.path(Tool::Containerd)?)?
            .arg("--config")
            .arg(config)
            .args(["--log-level", "info"]);
        let socket = folder.join(SOCKET.trim_start_matches('/'));
        let crictl = Crictl::new(run, parts, node, &socket)?;
        let mut runtime = Self { process: Process::start(run, invocation)?, crictl, socket };
        let crictl = &runtime.crictl;
        runtime.process.until_ready(READY, async || crictl.images().await.map(drop)).await?;
        Ok(runtime)
    }

    /// A client of its CRI.
    pub fn crictl(&self) -> &Crictl {
        &self.crictl
    }

    /// Its socket, as the test sees it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn configuration(folder: &Path, bin: &Path, sandbox: &str) -> Result<String> {
    let disabled = DISABLED.iter().map(|plugin| format!("\"{plugin}\"")).collect::<Vec<_>>().join(", ");
    let snapshotter = snapshotter(&folder.display().to_string())?;
    let runc = system_program::find("runc")?;
    let (folder, bin, runc) = (folder.display(), bin.display(), runc.display());
    Ok(format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [{disabled}]
[grpc]
  address = "{SOCKET}"
[ttrpc]
  address = "{SOCKET}.ttrpc"
[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd/opt"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{snapshotter}"
  use_local_image_pull = false
  stats_collect_period = 1
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{sandbox}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "{folder}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = false
  # Without CAP_SYS_RESOURCE runc cannot make a sandbox less likely to be killed; it fails instead.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{bin}"]
    conf_dir = "{folder}/cni"
"#
    ))
}
