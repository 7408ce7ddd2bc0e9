//! Time of exact search over random vectors; `scripts/retrieval_speed.py` measures faiss in the same way.
//!
//! cargo run --release -p modernbert-retrieval --example exact_search -- 50000 250 f16
//!
//! Arguments: vectors, queries, dtype (f32, f16 or int8). 768 components, the best 10. Processor time is that of all threads
//! (`RAYON_NUM_THREADS`): on a machine that others use, wall time measures them too.

use std::time::Instant;

use anyhow::{Context, bail};
use modernbert_retrieval::index::{Dtype, IndexOptions, IndexWriter, ModelId, Similarity};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIMENSION: usize = 768;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vectors, queries, dtype] = &arguments[..] else {
        bail!("give three arguments: vectors, queries, and f32, f16 or int8");
    };
    let (vectors, queries): (usize, usize) = (vectors.parse()?, queries.parse()?);
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::Int8];
    let dtype = dtypes
        .into_iter()
        .find(|known| known.name() == dtype)
        .context("the dtype is f32, f16 or int8")?;
    let place = tempfile::tempdir()?;
    let options = IndexOptions {
        dimension: DIMENSION,
        dtype,
        similarity: Similarity::Cosine,
        model: ModelId::default(),
    };
    let mut generator = ChaCha8Rng::seed_from_u64(0);
    let mut random = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| generator.random_range(-1.0..1.0))
            .collect()
    };
    let mut writer = IndexWriter::create(&place.path().join("index"), &options)?;
    for id in 0..vectors {
        writer.add(&id.to_string(), &random(DIMENSION), "")?;
    }
    let index = writer.finish()?;
    let questions = random(queries * DIMENSION);
    for _ in 0..5 {
        let (start, processor) = (Instant::now(), processor_seconds()?);
        index.search(&questions, 10, None)?;
        let (wall, processor) = (
            start.elapsed().as_secs_f64(),
            processor_seconds()? - processor,
        );
        let operations = 2.0 * (vectors * queries * DIMENSION) as f64;
        println!(
            "{} {vectors} vectors, {queries} queries: wall {wall:.3} s, processor {processor:.2} s, {:.1} GFLOP per processor second",
            dtype.name(),
            operations / processor.max(0.01) / 1e9
        );
    }
    Ok(())
}

/// User and system time of this process so far, in steps of 10 ms (Linux).
fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| -> anyhow::Result<f64> {
        Ok(fields.get(i).context("a short /proc/self/stat")?.parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
