//! Files from outside: damaged and malformed ones, ones on a server; and tiled initialization.
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
mod tiling_reference;
