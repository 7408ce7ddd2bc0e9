//! The producer of a pipeline: copies to the stages of a ring in shared memory, and the mbarriers that pass stages between producer and consumers.
//!
//! Every stage has two mbarriers. *Full*: the producer's warps arrive when the stage's copies are complete and visible to WGMMA.
//! *Empty*: the consumers' warps arrive when they have read the stage. Phases of a ring's barriers alternate in parity each time the
//! ring starts again (see [`Cursor`]). A consumer begins with parity 0, the phase that the first copies complete. The producer begins with parity 1:
//! on a new mbarrier the phase of parity 1 counts as complete, so that all stages start empty.
//!
//! Copies are `cp.async`, not TMA, because rows beyond the end of a sequence must become zeros and the next sequence follows in memory.
//! A thread has to wait for its copies before it may arrive at the full barrier. So that copies of several stages are in flight, a stage is
//! signalled as full when the copies of one or two further stages have been started (see [`Producer`]).

use cubecl::prelude::*;

use super::super::super::tile::AttentionTile;
use super::super::rows::{HeadRows, copy_number};
use crate::ops::ptx::*;

/// A ring of stages in shared memory: addresses of the first stage and of the first barriers of each kind, 8 bytes to a barrier.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Ring {
    tiles: u32,
    full: u32,
    empty: u32,
    #[cube(comptime)]
    stages: u32,
    /// Bytes of a stage.
    #[cube(comptime)]
    bytes: u32,
}

/// Bytes of the barriers of a ring.
pub(super) const fn barrier_bytes(stages: u32) -> u32 {
    16 * stages
}

#[cube]
impl Ring {
    /// The ring whose stages are at `tiles` and whose barriers are at `barriers`, the full ones first.
    pub(super) fn new(
        tiles: u32,
        barriers: u32,
        #[comptime] stages: u32,
        #[comptime] bytes: u32,
    ) -> Ring {
        Ring {
            tiles,
            full: barriers,
            empty: barriers + comptime!(8 * stages),
            stages,
            bytes,
        }
    }

    /// Initializes the full and empty barriers for `full` and `empty` arrivals in a phase.
    pub(super) fn init(&self, #[comptime] full: u32, #[comptime] empty: u32) {
        #[unroll]
        for i in 0..comptime!(self.stages) {
            mbarrier_init(self.full + comptime!(8 * i), full);
            mbarrier_init(self.empty + comptime!(8 * i), empty);
        }
    }

    /// Address of a stage.
    pub(super) fn tile(&self, stage: u32) -> u32 {
        self.tiles + stage * comptime!(self.bytes)
    }

    pub(super) fn await_full(&self, stage: u32, parity: u32) {
        mbarrier_wait(self.full + stage * 8u32, parity);
    }

    pub(super) fn await_empty(&self, stage: u32, parity: u32) {
        mbarrier_wait(self.empty + stage * 8u32, parity);
    }

    /// Arrives at the full barrier of a stage, if this thread is the elected one of its warp.
    pub(super) fn arrive_full(&self, stage: u32, elected: bool) {
        if elected {
            mbarrier_arrive(self.full + stage * 8u32);
        }
    }

    /// Arrives at the empty barrier of a stage, which this warp has read, if this thread is the elected one of its warp.
    pub(super) fn arrive_empty(&self, stage: u32, elected: bool) {
        if elected {
            mbarrier_arrive(self.empty + stage * 8u32);
        }
    }
}

/// A position in a ring of stages.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Cursor {
    /// Index of the stage.
    pub(super) stage: u32,
    /// Parity of the phase to wait for.
    pub(super) parity: u32,
}

#[cube]
impl Cursor {
    /// Returns the first stage; consumers start with parity 0, the producer with parity 1.
    pub(super) fn new(parity: u32) -> Cursor {
        Cursor {
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

/// A thread of the producer (the first `threads` threads of a warp group), with the stages whose copies it has started but not yet signalled as full.
#[derive(CubeType)]
pub(super) struct Producer {
    /// Full barriers of the stages, 0 for none.
    oldest: u32,
    newest: u32,
    /// True if this thread arrives for its warp.
    elected: bool,
    #[cube(comptime)]
    threads: u32,
    /// Number of further stages whose copies are started before a stage is signalled as full: 1 or 2.
    #[cube(comptime)]
    lag: u32,
}

#[cube]
impl Producer {
    pub(super) fn new(#[comptime] threads: u32, #[comptime] lag: u32) -> Producer {
        Producer {
            oldest: 0u32,
            newest: 0u32,
            elected: UNIT_POS % 32u32 == 0u32,
            threads,
            lag,
        }
    }

    /// Starts the copy of the rows from position `first` on to the ring's stage, once it is empty.
    pub(super) fn fill(
        &mut self,
        ring: &Ring,
        at: &Cursor,
        rows: &HeadRows,
        first: i32,
        thread: u32,
    ) {
        self.acquire(ring.empty + at.stage * 8u32, at.parity);
        self.copy(
            rows,
            first,
            ring.tile(at.stage),
            thread,
            comptime!(ring.bytes / ROW_BYTES),
        );
    }

    /// Ends the copies of a ring's stage.
    pub(super) fn commit(&mut self, ring: &Ring, at: &Cursor) {
        self.commit_to(ring.full + at.stage * 8u32);
    }

    /// Ends the copies of a stage, whose full barrier is `full`, and signals the stage started `lag` stages before as full.
    pub(super) fn commit_to(&mut self, full: u32) {
        copy_async_commit();
        copy_async_wait(self.lag);
        fence_async_proxy();
        sync_warp();
        if self.elected && self.oldest != 0u32 {
            mbarrier_arrive(self.oldest);
        }
        if comptime!(self.lag == 2) {
            self.oldest = self.newest;
            self.newest = full;
        } else {
            self.oldest = full;
        }
    }

    /// Waits for all copies of this thread and signals their stages as full.
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

    /// Waits until a stage is empty. Before the wait, all started stages are signalled as full: the consumers may be waiting for them, and would never
    /// empty this stage.
    fn acquire(&mut self, empty: u32, parity: u32) {
        if mbarrier_test(empty, parity) == 0u32 {
            self.flush();
            mbarrier_wait(empty, parity);
        }
    }

    /// Starts the copy of `rows` rows of 64 elements, from position `first` of the sequence on, under the 128-byte swizzle. Rows beyond
    /// the end of the sequence become zeros.
    pub(super) fn copy(
        &self,
        source: &HeadRows,
        first: i32,
        shared: u32,
        thread: u32,
        #[comptime] rows: u32,
    ) {
        let at_once = comptime!(self.threads / 8);
        let chunk = thread % 8u32;
        let row0 = thread / 8u32;
        let to = shared + row0 * ROW_BYTES + ((chunk ^ (row0 % 8u32)) * 16u32);
        let position = first + i32::cast_from(row0);
        let start = source.base + u64::cast_from(chunk * 16u32);
        let from = start + source.offset(source.tile.sequence + u32::cast_from(position));
        let step = u64::cast_from(source.pitch) * comptime!(u64::from(at_once));
        if first + comptime!(rows as i32) <= source.tile.length {
            #[unroll]
            for i in 0..comptime!(rows / at_once) {
                let row = from + step * comptime!(u64::from(i));
                copy_async_16(to + comptime!(i * at_once * ROW_BYTES), row, 16u32);
            }
        } else {
            for i in 0..comptime!(rows / at_once) {
                let inside = source.tile.has(position + i32::cast_from(i * at_once));
                let row = select(inside, from + step * u64::cast_from(i), start);
                let bytes = select(inside, 16u32, 0u32);
                copy_async_16(to + i * comptime!(at_once * ROW_BYTES), row, bytes);
            }
        }
    }

    /// As [`Producer::copy`], one f32 per row of a statistic `[heads, total]`, given the address of the sequence's first row.
    pub(super) fn copy_statistic(
        &self,
        statistic: u64,
        tile: AttentionTile,
        first: i32,
        shared: u32,
        thread: u32,
        #[comptime] rows: u32,
    ) {
        #[unroll]
        for i in 0..comptime!(rows / self.threads) {
            let row = thread + comptime!(i * self.threads);
            copy_number(
                statistic,
                tile,
                first + i32::cast_from(row),
                shared + row * 4u32,
            );
        }
    }
}
