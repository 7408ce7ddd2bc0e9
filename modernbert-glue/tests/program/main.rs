//! The program as a person runs it: tasks to results, and its messages about data and models that it can't use.
#![allow(clippy::unwrap_used)] // a test may fail loudly

#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod place;
mod refused;
mod watch;
