//! One process's membership in a group of GPUs.

use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use cudarc::driver::result as driver;
use cudarc::driver::sys as cuda;
use cudarc::nccl::{result as nccl, sys};

use crate::buffer::{Buffer, output};
use crate::{Division, ID_BYTES, NcclError, Watch};

/// How long the wait for an operation only polls the event; afterwards it sleeps between two looks.
const SPIN: Duration = Duration::from_millis(50);
/// Between two looks, afterwards.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two calls of the caller's function.
const WATCH: Duration = Duration::from_millis(100);

/// An identifier for a new communicator. Rank 0 makes it; every rank joins with the same bytes.
///
/// # Errors
/// A library that can't be loaded; a failure of NCCL, such as no usable network interface.
pub fn unique_id() -> Result<[u8; ID_BYTES], NcclError> {
    load()?;
    let id = nccl::get_uniqueid().map_err(|error| failed("ncclGetUniqueId", error))?;
    Ok(id.internal.map(|byte| byte as u8))
}

fn load() -> Result<(), NcclError> {
    // SAFETY: loading the library runs its initializers, which NCCL allows at any time.
    match unsafe { sys::is_culib_present() } {
        true => Ok(()),
        false => Err(NcclError::Library),
    }
}

fn failed(call: &'static str, error: nccl::NcclError) -> NcclError {
    // SAFETY: NCCL returns a static string for every code.
    let reason = unsafe { CStr::from_ptr(sys::ncclGetErrorString(error.0)) };
    let reason = reason.to_string_lossy().into_owned();
    NcclError::Nccl { call, reason }
}

fn driver_failed(error: driver::DriverError) -> NcclError {
    NcclError::Driver(error.to_string())
}

/// This process's membership in a group of GPUs, one per process.
///
/// All ranks must call the same operations in the same order. After an error the communicator is not usable.
#[derive(Debug)]
pub struct Communicator {
    comm: sys::ncclComm_t,
    context: cuda::CUcontext,
    gpu: cuda::CUdevice,
    stream: cuda::CUstream,
    event: cuda::CUevent,
    device: Device,
    rank: usize,
    size: usize,
    aborted: AtomicBool,
}

// SAFETY: NCCL communicators, streams and events may be used by any thread, one at a time; methods take the communicator by reference, and
// the driver serializes calls on one stream. Two threads that call operations at once would break the order that the ranks agree on, which
// gives wrong results but no access to freed memory.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Joins the communicator `id` as `rank` of `size` with the GPU `device`. Returns when all ranks have joined.
    ///
    /// # Errors
    /// A device that is no CUDA device; a library that can't be loaded; a failure of NCCL.
    pub fn join(
        id: &[u8; ID_BYTES],
        rank: usize,
        size: usize,
        device: &Device,
    ) -> Result<Self, NcclError> {
        load()?;
        let probe = Buffer::of(Tensor::<1>::zeros([1], device))?;
        let number = probe.gpu().unwrap_or(0);
        drop(probe);
        let gpu = driver::device::get(number as i32).map_err(driver_failed)?;
        // SAFETY: `gpu` is a device; CubeCL uses the same primary context. It is released when this value is dropped.
        let context = unsafe { driver::primary_ctx::retain(gpu) }.map_err(driver_failed)?;
        // SAFETY: the context is alive.
        unsafe { driver::ctx::set_current(context) }.map_err(driver_failed)?;
        let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking)
            .map_err(driver_failed)?;
        let event = driver::event::create(cuda::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(driver_failed)?;
        let id = sys::ncclUniqueId {
            internal: id.map(|byte| byte as std::ffi::c_char),
        };
        let mut comm = MaybeUninit::uninit();
        // SAFETY: `comm` is written where the call succeeds; the current context is that of this rank's GPU.
        let comm = unsafe {
            nccl::comm_init_rank(comm.as_mut_ptr(), size as i32, id, rank as i32)
                .map_err(|error| failed("ncclCommInitRank", error))?;
            comm.assume_init()
        };
        Ok(Self {
            comm,
            context,
            gpu,
            stream,
            event,
            device: device.clone(),
            rank,
            size,
            aborted: AtomicBool::new(false),
        })
    }

    /// Sends to every rank `i` the elements `division.shares[i]` of every vector of `vectors`, each in pieces of `division.lengths`. Rank `i`
    /// sends `receive[i]` vectors; returns its share of each of them, in the order of the ranks.
    ///
    /// # Errors
    /// Pieces and shares that don't fit each other; a failure of NCCL; a reason that `watch` gives.
    pub fn all_to_all(
        &self,
        vectors: Vec<Vec<Tensor<1>>>,
        division: Division<'_>,
        receive: &[usize],
        watch: Watch<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        for pieces in &vectors {
            self.check(pieces, division)?;
        }
        let own = division.shares[self.rank].clone();
        let count = receive.iter().sum();
        let from = buffers(vectors.into_iter().flatten())?;
        let to = (0..count).map(|_| output(own.len(), &self.device));
        let (results, to): (Vec<_>, Vec<_>) =
            to.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        self.operation(watch, || {
            group(|| {
                let mut to = to.iter();
                for (rank, share) in division.shares.iter().enumerate() {
                    for vector in from.chunks(division.lengths.len()) {
                        for (piece, part) in overlaps(division.lengths, share) {
                            self.send(vector[piece].at(part.start), part.len(), rank)?;
                        }
                    }
                    for to in to.by_ref().take(receive[rank]) {
                        let mut at = 0;
                        for (_, part) in overlaps(division.lengths, &own) {
                            self.receive(to.at(at), part.len(), rank)?;
                            at += part.len();
                        }
                    }
                }
                Ok(())
            })
        })?;
        Ok(results)
    }

    /// The vector of which every rank `i` has the elements `division.shares[i]`, in pieces of `division.lengths`; `own` is this rank's share.
    ///
    /// # Errors
    /// As [`Self::all_to_all`].
    pub fn all_gather(
        &self,
        own: Tensor<1>,
        division: Division<'_>,
        watch: Watch<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        let share = division.shares[self.rank].clone();
        if own.dims()[0] != share.len() {
            return Err(NcclError::Division);
        }
        let from = Buffer::of(own)?;
        let (results, to) = self.outputs(division.lengths)?;
        self.operation(watch, || {
            group(|| {
                for (rank, of_rank) in division.shares.iter().enumerate() {
                    let mut at = 0;
                    for (_, part) in overlaps(division.lengths, &share) {
                        self.send(from.at(at), part.len(), rank)?;
                        at += part.len();
                    }
                    for (piece, part) in overlaps(division.lengths, of_rank) {
                        self.receive(to[piece].at(part.start), part.len(), rank)?;
                    }
                }
                Ok(())
            })
        })?;
        Ok(results)
    }

    /// The sums of the tensors of all ranks, in an order that NCCL chooses by size, topology and version.
    ///
    /// # Errors
    /// As [`Self::all_to_all`].
    pub fn all_reduce(
        &self,
        pieces: Vec<Tensor<1>>,
        watch: Watch<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.dims()[0]).collect();
        let from = buffers(pieces)?;
        let (results, to) = self.outputs(&lengths)?;
        self.operation(watch, || {
            group(|| {
                for ((from, to), &count) in from.iter().zip(&to).zip(&lengths) {
                    // SAFETY: both buffers hold `count` elements and live until the operation is done.
                    let called = unsafe {
                        nccl::all_reduce(
                            from.at(0) as *const c_void,
                            to.at(0) as *mut c_void,
                            count,
                            sys::ncclDataType_t::ncclFloat32,
                            sys::ncclRedOp_t::ncclSum,
                            self.comm,
                            self.stream.cast(),
                        )
                    };
                    called.map_err(|error| failed("ncclAllReduce", error))?;
                }
                Ok(())
            })
        })?;
        Ok(results)
    }

    /// New tensors of these lengths, and their memory.
    fn outputs(&self, lengths: &[usize]) -> Result<(Vec<Tensor<1>>, Vec<Buffer>), NcclError> {
        let outputs = lengths.iter().map(|&count| output(count, &self.device));
        Ok(outputs.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
    }

    fn check(&self, pieces: &[Tensor<1>], division: Division<'_>) -> Result<(), NcclError> {
        let lengths = pieces.iter().map(|piece| piece.dims()[0]);
        let ends = division.shares.last().map_or(0, |share| share.end);
        let fits = lengths.eq(division.lengths.iter().copied())
            && division.shares.len() == self.size
            && division.lengths.iter().sum::<usize>() == ends;
        if fits {
            Ok(())
        } else {
            Err(NcclError::Division)
        }
    }

    /// Runs `launch`, which queues NCCL calls on the stream, and waits for them.
    fn operation(
        &self,
        watch: Watch<'_>,
        launch: impl FnOnce() -> Result<(), NcclError>,
    ) -> Result<(), NcclError> {
        // Inputs must be computed and the outputs' zeros written before NCCL's stream, which knows nothing of Burn's, may run.
        self.device
            .sync()
            .map_err(|error| NcclError::Driver(error.to_string()))?;
        // SAFETY: the context is alive. Another thread of the process may have made another one current for this thread's pool.
        unsafe { driver::ctx::set_current(self.context) }.map_err(driver_failed)?;
        let done = launch().and_then(|()| self.wait(watch));
        if done.is_err() {
            self.abort();
        }
        done
    }

    /// Waits for the stream.
    fn wait(&self, watch: Watch<'_>) -> Result<(), NcclError> {
        // SAFETY: event and stream belong to the current context and are alive.
        unsafe { driver::event::record(self.event, self.stream) }.map_err(driver_failed)?;
        let start = Instant::now();
        let mut watched = start;
        loop {
            // SAFETY: as above.
            match unsafe { driver::event::query(self.event) } {
                Ok(()) => return Ok(()),
                Err(error) if error.0 == cuda::CUresult::CUDA_ERROR_NOT_READY => {}
                Err(error) => return Err(driver_failed(error)),
            }
            if watched.elapsed() > WATCH {
                watched = Instant::now();
                self.asynchronous_error()?;
                if let Some(reason) = watch() {
                    return Err(NcclError::Ended(reason));
                }
            }
            match start.elapsed() < SPIN {
                true => std::thread::yield_now(),
                false => std::thread::sleep(PAUSE),
            }
        }
    }

    /// A failure that NCCL noticed after the call returned, such as a lost connection.
    fn asynchronous_error(&self) -> Result<(), NcclError> {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is alive, `state` is written.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.comm, &mut state) };
        for code in [asked, state] {
            code.result()
                .map_err(|error| failed("an operation", error))?;
        }
        Ok(())
    }

    fn abort(&self) {
        if !self.aborted.swap(true, Ordering::Relaxed) {
            // SAFETY: the communicator is alive; it is not used afterwards. The result doesn't matter: the run ends.
            let _ = unsafe { nccl::comm_abort(self.comm) };
        }
    }

    fn send(&self, from: u64, count: usize, rank: usize) -> Result<(), NcclError> {
        if count == 0 {
            return Ok(());
        }
        // SAFETY: the buffer holds `count` elements from this address, and lives until the operation is done.
        let called = unsafe {
            nccl::send(
                from as *const c_void,
                count,
                sys::ncclDataType_t::ncclFloat32,
                rank as i32,
                self.comm,
                self.stream.cast(),
            )
        };
        called
            .map_err(|error| failed("ncclSend", error))
            .map(|_| ())
    }

    fn receive(&self, to: u64, count: usize, rank: usize) -> Result<(), NcclError> {
        if count == 0 {
            return Ok(());
        }
        // SAFETY: as for `send`; no two calls of an operation write the same elements.
        let called = unsafe {
            nccl::recv(
                to as *mut c_void,
                count,
                sys::ncclDataType_t::ncclFloat32,
                rank as i32,
                self.comm,
                self.stream.cast(),
            )
        };
        called
            .map_err(|error| failed("ncclRecv", error))
            .map(|_| ())
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: everything was created by `join` and is released once, with its context current. NCCL ends the communicator only after
        // its operations are done; after an abort it is gone already. A process that ends needs none of the results.
        unsafe {
            let _ = driver::ctx::set_current(self.context);
            if !self.aborted.load(Ordering::Relaxed) {
                let _ = nccl::comm_destroy(self.comm);
            }
            let _ = driver::event::destroy(self.event);
            let _ = driver::stream::destroy(self.stream);
            let _ = driver::primary_ctx::release(self.gpu);
        }
    }
}

/// Calls that NCCL must start together: a send and the receive that waits for it would block each other otherwise.
fn group(calls: impl FnOnce() -> Result<(), NcclError>) -> Result<(), NcclError> {
    nccl::group_start().map_err(|error| failed("ncclGroupStart", error))?;
    let called = calls();
    let ended = nccl::group_end().map_err(|error| failed("ncclGroupEnd", error));
    called.and(ended.map(|_| ()))
}

/// The memory of each tensor. All operations are queued before the device is waited for, so the host's work is done meanwhile.
fn buffers(tensors: impl IntoIterator<Item = Tensor<1>>) -> Result<Vec<Buffer>, NcclError> {
    tensors.into_iter().map(Buffer::of).collect()
}

/// The pieces of a vector that `range` overlaps, each with the elements of the piece that lie in it.
fn overlaps<'a>(
    lengths: &'a [usize],
    range: &Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> + use<'a> {
    let range = range.clone();
    let starts = lengths.iter().scan(0, |end, &length| {
        let start = *end;
        *end += length;
        Some((start, length))
    });
    starts
        .enumerate()
        .filter_map(move |(piece, (start, length))| {
            let from = range.start.max(start);
            let to = range.end.min(start + length);
            (from < to).then(|| (piece, from - start..to - start))
        })
}

#[cfg(test)]
mod tests {
    use super::overlaps;

    #[test]
    fn overlaps_of_all_shares_are_all_elements_once() {
        let lengths = [3, 0, 5, 1];
        let of = |range| overlaps(&lengths, &range).collect::<Vec<_>>();
        assert_eq!(of(0..4), [(0, 0..3), (2, 0..1)]);
        assert_eq!(of(4..9), [(2, 1..5), (3, 0..1)]);
        assert_eq!(of(3..3), []);
    }
}
