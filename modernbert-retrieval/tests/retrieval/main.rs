//! Data sets, measures, BM25 and the program, from files as a person has them.

mod bm25;
mod cranfield;
mod data;
mod files;
mod layouts;
mod measures;
mod program;
mod runs;
