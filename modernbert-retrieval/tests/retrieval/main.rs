//! Data sets, measures, BM25, indexes and the program, from files as a person has them.
#![recursion_limit = "256"]
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod bm25;
mod cranfield;
mod data;
mod demo;
mod files;
mod functions;
mod fusion;
mod index;
mod layouts;
mod losses;
mod maxsim;
mod measures;
mod program;
mod runs;
mod searching;
mod training;
mod training_program;
mod vectors;
