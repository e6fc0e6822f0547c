//! `cargo xtask`: the project's commands. It owns nothing but the entry; each command is a file under `src/xtask/`.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration::xtask::main()
}
