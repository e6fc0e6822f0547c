//! Generates the CRI client from `proto/`, in Rust alone: no protoc is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["runtime/v1/api.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        // Connections are made over a Unix socket by `cri::client`; the generated `connect` is for TCP.
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
