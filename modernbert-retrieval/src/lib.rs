//! Retrieval: data sets, run files, measures and BM25.
//!
//! | module | contents |
//! |---|---|
//! | [`data`] | BEIR, NanoBEIR, MLDR and CoIR folders |
//! | [`run`] | ranked documents by query; TREC run files |
//! | [`metrics`] | nDCG, MAP, MRR, recall, precision; significance of a difference |
//! | [`bm25`] | the lexical baseline |
//! | [`table`] | results beside the paper's |

pub mod bm25;
pub mod data;
pub mod metrics;
pub mod run;
pub mod table;
