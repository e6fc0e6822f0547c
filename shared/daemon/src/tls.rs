//! The one TLS provider of the process: ring.
//!
//! Owns installing it. Never reads a certificate.

/// Makes ring the provider of every TLS connection. The first line of `main`; again is harmless.
pub fn install_crypto_provider() {
    // An error means that one is installed already: by an earlier call, since no other provider is compiled in.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
