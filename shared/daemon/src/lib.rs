//! What both processes are built on: the one loop, supervision, configuration, telemetry, the NATS connection, admin HTTP.
//!
//! Owns time, tasks, environment and metrics, so that nothing else has to. Never knows what Kubernetes or a container
//! runtime is.

pub mod admin;
pub mod bus;
pub mod clock;
pub mod config;
pub mod driver;
pub mod inspect;
pub mod metrics;
pub mod record;
pub mod replies;
pub mod snapshot;
pub mod supervise;
pub mod telemetry;
pub mod tls;
