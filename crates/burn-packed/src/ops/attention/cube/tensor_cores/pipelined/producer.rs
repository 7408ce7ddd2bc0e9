//! The producer's side of a pipeline: copies to the stages of a ring in shared memory, and their handover to the consumers.
//!
//! Every stage has two mbarriers. *Full*: the producer's warps arrive when the stage's copies are complete and visible to WGMMA.
//! *Empty*: the consumers' warps arrive when they have read the stage. Phases of a ring's barriers alternate in parity each time the
//! ring starts again. A consumer waits for parity 0 first. The producer waits for parity 1 first, which counts as completed on a
//! new barrier: all stages start empty.
//!
//! Copies are `cp.async`, not TMA, because rows beyond the end of a sequence must become zeros and the next sequence follows in memory.
//! A thread learns that its copies are complete only by waiting for them. So that several stages are in flight, a stage is
//! handed over when one or two further stages have been started (see [`Handover`]).

use cubecl::prelude::*;

use super::super::super::tile::Tile;
use super::super::ptx::{
    ROW_BYTES, copy_async_4, copy_async_16, copy_async_commit, copy_async_wait, fence_async_proxy,
};
use super::super::rows::Rows;
use super::ptx::*;

/// A position in a ring of stages.
#[derive(CubeType)]
pub(super) struct Ring {
    /// Index of the stage.
    pub(super) stage: u32,
    /// Parity of the phase to wait for.
    pub(super) parity: u32,
}

#[cube]
impl Ring {
    /// The first stage; consumers start with parity 0, the producer with parity 1.
    pub(super) fn new(parity: u32) -> Ring {
        Ring {
            stage: 0u32,
            parity,
        }
    }

    pub(super) fn advance(&mut self, #[comptime] stages: u32) {
        self.stage += 1u32;
        if self.stage == stages {
            self.stage = 0u32;
            self.parity ^= 1u32;
        }
    }
}

/// Stages whose copies this thread has started and not handed over: their full barriers, 0 for none.
#[derive(CubeType)]
pub(super) struct Handover {
    oldest: u32,
    newest: u32,
    /// True if this thread arrives for its warp.
    elected: bool,
}

#[cube]
impl Handover {
    pub(super) fn new() -> Handover {
        Handover {
            oldest: 0u32,
            newest: 0u32,
            elected: UNIT_POS % 32u32 == 0u32,
        }
    }

    /// Ends the copies of a stage, whose full barrier is `full`, and hands over the stage started `lag` stages before (1 or 2).
    pub(super) fn commit(&mut self, full: u32, #[comptime] lag: u32) {
        copy_async_commit();
        copy_async_wait(lag);
        fence_async_proxy();
        sync_warp();
        if self.elected && self.oldest != 0u32 {
            mbarrier_arrive(self.oldest);
        }
        if comptime!(lag == 2) {
            self.oldest = self.newest;
            self.newest = full;
        } else {
            self.oldest = full;
        }
    }

    /// Hands over everything.
    pub(super) fn flush(&mut self) {
        copy_async_wait(0u32);
        fence_async_proxy();
        sync_warp();
        if self.elected && self.oldest != 0u32 {
            mbarrier_arrive(self.oldest);
        }
        if self.elected && self.newest != 0u32 {
            mbarrier_arrive(self.newest);
        }
        self.oldest = 0u32;
        self.newest = 0u32;
    }

    /// Waits until a stage is empty. Before it blocks, it hands over everything: the consumers may be waiting for just that.
    pub(super) fn acquire(&mut self, empty: u32, parity: u32) {
        if mbarrier_test(empty, parity) == 0u32 {
            self.flush();
            mbarrier_wait(empty, parity);
        }
    }
}

/// Starts the copy of `rows` rows of 64 elements, from position `first` of a sequence on, by `threads` threads (this one being
/// `thread`), under the 128-byte swizzle. Rows beyond the end of the sequence become zeros.
#[cube]
pub(super) fn copy_rows(
    source: &Rows,
    tile: &Tile,
    first: i32,
    shared: u32,
    thread: u32,
    #[comptime] rows: u32,
    #[comptime] threads: u32,
) {
    let at_once = comptime!(threads / 8);
    let chunk = thread % 8u32;
    let row0 = thread / 8u32;
    let to = shared + row0 * ROW_BYTES + ((chunk ^ (row0 % 8u32)) * 16u32);
    let position = first + i32::cast_from(row0);
    let start = source.base + u64::cast_from(chunk * 16u32);
    let from = start
        + u64::cast_from(tile.sequence + u32::cast_from(position)) * u64::cast_from(source.pitch);
    let step = u64::cast_from(source.pitch) * comptime!(u64::from(at_once));
    if first + comptime!(rows as i32) <= tile.length {
        #[unroll]
        for i in 0..comptime!(rows / at_once) {
            copy_async_16(
                to + comptime!(i * at_once * ROW_BYTES),
                from + step * comptime!(u64::from(i)),
                16u32,
            );
        }
    } else {
        for i in 0..comptime!(rows / at_once) {
            let inside = position + i32::cast_from(i * at_once) < tile.length;
            copy_async_16(
                to + i * comptime!(at_once * ROW_BYTES),
                select(inside, from + step * u64::cast_from(i), start),
                select(inside, 16u32, 0u32),
            );
        }
    }
}

/// As [`copy_rows`], one f32 per row of `statistic` `[heads, total]`, given the address of its sequence's first row.
#[cube]
pub(super) fn copy_statistic(
    statistic: u64,
    tile: &Tile,
    first: i32,
    shared: u32,
    thread: u32,
    #[comptime] rows: u32,
    #[comptime] threads: u32,
) {
    #[unroll]
    for i in 0..comptime!(rows / threads) {
        let row = thread + comptime!(i * threads);
        let position = first + i32::cast_from(row);
        let inside = position < tile.length;
        copy_async_4(
            shared + row * 4u32,
            statistic + u64::cast_from(select(inside, u32::cast_from(position), 0u32) * 4u32),
            select(inside, 4u32, 0u32),
        );
    }
}
