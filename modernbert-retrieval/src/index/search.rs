//! Exact search: every query is compared with every vector.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::top::{Candidate, Top};
use super::{Dtype, IndexError, Similarity, VectorIndex, options, prepared};
use crate::kernel::{Comparison, LANES, PackedQueries};

/// Bytes of decoded panels that a thread works on at a time: they stay in the L2 cache while all queries are computed.
const BLOCK_BYTES: usize = 384 << 10;

/// Queries that are compared with the vectors at a time. Each task keeps up to twice the wanted number of vectors for each of them.
const QUERIES: usize = 1024;

/// A vector found for a query.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorHit<'a> {
    /// Its id.
    pub id: &'a str,
    /// Similarity to the query.
    pub score: f32,
    /// Its metadata as JSON; empty if it has none.
    pub metadata: &'a str,
}

/// Decides by id and metadata whether a vector may be found.
pub type Filter<'a> = dyn Fn(&str, &str) -> bool + Sync + 'a;

impl VectorIndex {
    /// Returns the best `count` vectors for each query, best first; equal scores by id, ascending. `queries` is `[n, dimension]`.
    ///
    /// The scores of a query are bit-identical for any number of threads and any other queries. For int8, queries stay in f32. Distances are
    /// negative, so that the best score is the largest.
    ///
    /// # Errors
    /// [`IndexError`]: a number of values that is not a multiple of the dimension, a component that is not finite or is too large, a query
    /// of zeros under the cosine.
    pub fn search(
        &self,
        queries: &[f32],
        count: usize,
        filter: Option<&Filter<'_>>,
    ) -> Result<Vec<Vec<VectorHit<'_>>>, IndexError> {
        let mut found = Vec::with_capacity(queries.len() / self.manifest.dimension);
        self.search_each(queries, count, filter, |hits| found.push(hits))?;
        Ok(found)
    }

    /// As [`Self::search`]; calls `visit` with the vectors of each query, in order, so that those of all queries are never in memory at once.
    ///
    /// # Errors
    /// As [`Self::search`], before the first call.
    pub fn search_each<'s>(
        &'s self,
        queries: &[f32],
        count: usize,
        filter: Option<&Filter<'_>>,
        mut visit: impl FnMut(Vec<VectorHit<'s>>),
    ) -> Result<(), IndexError> {
        let dimension = self.manifest.dimension;
        let options = options(&self.manifest);
        let mut values = Vec::with_capacity(queries.len());
        for (i, query) in queries.chunks(dimension).enumerate() {
            values.extend(prepared(query, &options, Dtype::F32, || {
                format!("query {}", i + 1)
            })?);
        }
        if count == 0 {
            (0..values.len() / dimension).for_each(|_| visit(Vec::new()));
            return Ok(());
        }
        let allowed = self.allowed(filter);
        for queries in values.chunks(QUERIES * dimension) {
            let found = self.search_some(queries, count, &allowed);
            found.into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    /// The best vectors of some queries, which are prepared; `count` is 1 or more.
    fn search_some(
        &self,
        queries: &[f32],
        count: usize,
        allowed: &[Option<Vec<bool>>],
    ) -> Vec<Vec<VectorHit<'_>>> {
        let dimension = self.manifest.dimension;
        let packed = PackedQueries::new(queries, dimension);
        let number = queries.len() / dimension;
        let order = |a: &Candidate, b: &Candidate| self.order(a, b);
        let block = (BLOCK_BYTES / (dimension * LANES * 4)).max(1);
        let tasks = self.tasks(block);
        let comparison = match self.manifest.similarity {
            Similarity::Cosine | Similarity::Dot => Comparison::Product,
            Similarity::Euclidean => Comparison::SquaredDifference,
            Similarity::Manhattan => Comparison::Difference,
        };
        let empty = || -> Vec<Top> { (0..number).map(|_| Top::new(count)).collect() };
        let found: Vec<Vec<Top>> = tasks
            .into_par_iter()
            .map(|ranges| {
                let mut tops = empty();
                let mut panels = Vec::new();
                for (segment, from, to) in ranges {
                    for start in (from..to).step_by(block) {
                        let end = (start + block).min(to);
                        let stored = &self.segments[segment];
                        // A factor of a product is applied to the score, one of a difference to the components.
                        match comparison {
                            Comparison::Product => stored.decode(start, end, &mut panels),
                            _ => stored.decode_scaled(start, end, &mut panels),
                        }
                        self.score_block(
                            (&packed, comparison),
                            &panels,
                            (segment, start),
                            &allowed[segment],
                            &mut tops,
                        );
                    }
                }
                tops
            })
            .collect();
        let mut tops = empty();
        for other in found {
            for (top, other) in tops.iter_mut().zip(other) {
                top.merge(other);
            }
        }
        let hit = |candidate: Candidate| {
            let segment = &self.segments[candidate.segment as usize];
            let row = candidate.row as usize;
            VectorHit {
                id: segment.id(row),
                score: candidate.score,
                metadata: segment.metadata(row),
            }
        };
        let finish = |top: Top| top.finish(order).into_iter().map(hit).collect();
        tops.into_iter().map(finish).collect()
    }

    fn score_block(
        &self,
        (packed, comparison): (&PackedQueries, Comparison),
        panels: &[f32],
        (segment, start): (usize, usize),
        allowed: &Option<Vec<bool>>,
        tops: &mut [Top],
    ) {
        let stored = &self.segments[segment];
        let order = |a: &Candidate, b: &Candidate| self.order(a, b);
        let quantized = stored.dtype == Dtype::Int8;
        packed.score(comparison, panels, |query, panel, scores| {
            let first = (start + panel) * LANES;
            let rows = LANES.min(stored.rows - first);
            for (top, scores) in tops[query..].iter_mut().zip(scores) {
                for (lane, &score) in scores[..rows].iter().enumerate() {
                    let row = first + lane;
                    let score = match comparison {
                        Comparison::Product if quantized => score * stored.scale(row),
                        Comparison::Product => score,
                        Comparison::SquaredDifference => -score.sqrt(),
                        Comparison::Difference => -score,
                    };
                    if score < top.bar() || allowed.as_ref().is_some_and(|allowed| !allowed[row]) {
                        continue;
                    }
                    let candidate = Candidate {
                        // Adding 0 makes -0 and 0 one score.
                        score: score + 0.0,
                        segment: segment as u32,
                        row: row as u32,
                    };
                    top.push(candidate, order);
                }
            }
        });
    }

    /// Better candidates first. Ids are unique, so two rows are never equal.
    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        let id = |candidate: &Candidate| {
            self.segments[candidate.segment as usize].id(candidate.row as usize)
        };
        b.score.total_cmp(&a.score).then_with(|| id(a).cmp(id(b)))
    }

    /// Rows that may be found, by segment. `None` if all may.
    fn allowed(&self, filter: Option<&Filter<'_>>) -> Vec<Option<Vec<bool>>> {
        let Some(filter) = filter else {
            return self.live.clone();
        };
        let of_segment = |(segment, live): (&super::Segment, &Option<Vec<bool>>)| {
            let may = |row: usize| {
                live.as_ref().is_none_or(|live| live[row])
                    && filter(segment.id(row), segment.metadata(row))
            };
            Some((0..segment.rows).into_par_iter().map(may).collect())
        };
        self.segments
            .iter()
            .zip(&self.live)
            .map(of_segment)
            .collect()
    }

    /// Ranges `(segment, first panel, end)` for each task: a few tasks per thread, each a similar number of blocks.
    fn tasks(&self, block: usize) -> Vec<Vec<(usize, usize, usize)>> {
        let panels: usize = self.segments.iter().map(super::Segment::panels).sum();
        let share = panels
            .div_ceil(4 * rayon::current_num_threads())
            .next_multiple_of(block)
            .max(1);
        let mut tasks = Vec::new();
        let mut task = Vec::new();
        let mut space = share;
        for (number, segment) in self.segments.iter().enumerate() {
            let mut from = 0;
            while from < segment.panels() {
                let to = (from + space).min(segment.panels());
                task.push((number, from, to));
                space -= to - from;
                from = to;
                if space == 0 {
                    tasks.push(std::mem::take(&mut task));
                    space = share;
                }
            }
        }
        tasks.push(task);
        tasks
    }
}
