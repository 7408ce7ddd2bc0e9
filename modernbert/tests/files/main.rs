//! Files from outside: damaged ones, lying ones, ones that live on a server; and a large model begun from a small one.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod memory;
#[path = "../inference/model.rs"]
mod model;
#[cfg(feature = "hub")]
mod server;
mod tiling;
