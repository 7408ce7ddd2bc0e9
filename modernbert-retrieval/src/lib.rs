//! Retrieval: data sets, run files, measures, BM25, an exact vector index, MaxSim and rank fusion.
//!
//! | module | contents |
//! |---|---|
//! | [`data`] | BEIR, NanoBEIR, MLDR and CoIR folders |
//! | [`run`] | ranked documents by query; TREC run files |
//! | [`metrics`] | nDCG, MAP, MRR, recall, precision; significance of a difference |
//! | [`bm25`] | the lexical baseline |
//! | [`vectors`] | files of vectors, as `embed` writes them |
//! | [`index`] | an exact vector index on disk |
//! | [`maxsim`] | scores of multi-vector models |
//! | [`fusion`] | several runs combined by their ranks |
//! | [`table`] | results with the paper's |
//! | [`train`] | training of models with a vector per text or per token |
//! | [`mine`] | hard negatives for training |
//! | [`functions`] | pairs of a doc comment and its function, from cargo's registry |
//!
//! Only [`train`] and [`mine`] use a tensor library and a model: elsewhere vectors are slices of f32.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod bm25;
pub mod data;
pub mod functions;
pub mod fusion;
pub mod index;
mod kernel;
pub mod maxsim;
pub mod metrics;
pub mod mine;
pub mod run;
pub mod table;
pub mod train;
pub mod vectors;
