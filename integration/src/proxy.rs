//! What stands between the product and a real part to disturb it on demand. Each proxy passes everything on unchanged
//! until told otherwise, and logs what passed.

pub mod cri;
pub mod fault;
pub mod http;
pub mod log;
mod passage;
pub mod rules;
pub mod tcp;
