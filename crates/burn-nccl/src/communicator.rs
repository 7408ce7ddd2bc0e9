//! One process's membership in a group of GPUs.

use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use cudarc::driver::result as driver;
use cudarc::driver::sys as cuda;
use cudarc::nccl::{result as nccl, sys};

use crate::buffer::{Buffer, output};
use crate::layout::FlatLayout;
use crate::{AbortCheck, ID_BYTES, NcclError};

/// Time for which the wait for an operation polls the event without sleeping.
const SPIN: Duration = Duration::from_millis(50);
/// Pause between two polls after that time.
const PAUSE: Duration = Duration::from_millis(1);
/// Pause between two calls of the caller's function.
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
    /// Elements after which Burn may view a part of a tensor without a copy.
    alignment: usize,
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
    pub fn init_rank(
        id: &[u8; ID_BYTES],
        rank: usize,
        size: usize,
        device: &Device,
    ) -> Result<Self, NcclError> {
        load()?;
        let probe = Buffer::of(Tensor::<1>::zeros([1], device))?;
        let number = probe.gpu().unwrap_or(0);
        let alignment = probe.alignment();
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
            alignment,
            rank,
            size,
            aborted: AtomicBool::new(false),
        })
    }

    /// Sums vectors of all ranks by `sum`, a function of the caller. Each vector consists of tensors of `lengths`, its pieces. Rank `i` brings
    /// `receive[i]` vectors. Every rank receives its share of all vectors, in the order of the ranks, and `sum` makes one tensor of the same
    /// length of them; the shares are then exchanged. Returns the pieces of the whole result, the same on every rank.
    ///
    /// A rank sends and receives `2 (n - 1) / n` times the bytes of a vector if every rank brings one. NCCL only copies, so the bits of the
    /// result are those of `sum`. `sum` must work element by element: where a share begins is not specified.
    ///
    /// # Errors
    /// Pieces that are not of `lengths`, a sum of another length; a failure of NCCL; a reason that `abort_check` gives.
    pub fn all_reduce_by(
        &self,
        vectors: Vec<Vec<Tensor<1>>>,
        lengths: &[usize],
        receive: &[usize],
        sum: impl FnOnce(Vec<Tensor<1>>) -> Tensor<1>,
        abort_check: AbortCheck<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        let fits = |pieces: &Vec<Tensor<1>>| {
            let dims = pieces.iter().map(|piece| piece.dims()[0]);
            dims.eq(lengths.iter().copied())
        };
        if !vectors.iter().all(fits) || receive.len() != self.size {
            return Err(NcclError::Lengths);
        }
        let layout = FlatLayout::new(lengths, self.alignment);
        let own = layout.range_of_rank(self.rank, self.size);
        // All memory is allocated before the first wait: meanwhile the device still computes the inputs. The first flat vector is sent from
        // and later receives the result.
        let count = vectors.len();
        let from = vectors.into_iter().map(buffers);
        let from = from.collect::<Result<Vec<_>, _>>()?;
        let flat = self.outputs(count.max(1), layout.total)?;
        let received = self.outputs(receive.iter().sum(), own.len())?;
        self.operation(abort_check, || {
            for (pieces, (_, flat)) in from.iter().zip(&flat) {
                self.copy(pieces, flat, &layout)?;
            }
            group(|| {
                let mut received = received.iter();
                for (rank, &vectors) in receive.iter().enumerate() {
                    let share = layout.range_of_rank(rank, self.size);
                    for (_, flat) in &flat[..count] {
                        self.send(flat.at(share.start), share.len(), rank)?;
                    }
                    for (_, to) in received.by_ref().take(vectors) {
                        self.receive(to.at(0), own.len(), rank)?;
                    }
                }
                Ok(())
            })
        })?;
        drop(from);
        let received = received.into_iter().map(|(tensor, _)| tensor);
        let sum = sum(received.collect());
        if sum.dims()[0] != own.len() {
            return Err(NcclError::Lengths);
        }
        let sum = Buffer::of(sum)?;
        let [(tensor, result), ..] = &flat[..] else {
            return Err(NcclError::Lengths);
        };
        self.operation(abort_check, || {
            group(|| {
                for rank in 0..self.size {
                    let share = layout.range_of_rank(rank, self.size);
                    self.send(sum.at(0), own.len(), rank)?;
                    self.receive(result.at(share.start), share.len(), rank)?;
                }
                Ok(())
            })
        })?;
        Ok(layout.pieces(tensor))
    }

    /// The sums of the tensors of all ranks, in an order that NCCL chooses by size, topology and version.
    ///
    /// # Errors
    /// A failure of NCCL; a reason that `abort_check` gives.
    pub fn all_reduce(
        &self,
        pieces: Vec<Tensor<1>>,
        abort_check: AbortCheck<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.dims()[0]).collect();
        let layout = FlatLayout::new(&lengths, self.alignment);
        let from = buffers(pieces)?;
        let (tensor, flat) = output(layout.total, &self.device)?;
        self.operation(abort_check, || {
            self.copy(&from, &flat, &layout)?;
            // SAFETY: the buffer holds `layout.total` elements and lives until the operation is done; NCCL allows the sum in place.
            let called = unsafe {
                nccl::all_reduce(
                    flat.at(0) as *const c_void,
                    flat.at(0) as *mut c_void,
                    layout.total,
                    sys::ncclDataType_t::ncclFloat32,
                    sys::ncclRedOp_t::ncclSum,
                    self.comm,
                    self.stream.cast(),
                )
            };
            called.map_err(|error| failed("ncclAllReduce", error))?;
            Ok(())
        })?;
        Ok(layout.pieces(&tensor))
    }

    /// New tensors of one length, and their memory.
    fn outputs(&self, count: usize, length: usize) -> Result<Vec<(Tensor<1>, Buffer)>, NcclError> {
        (0..count).map(|_| output(length, &self.device)).collect()
    }

    /// Queues copies of the pieces to their offsets in a flat vector.
    fn copy(
        &self,
        pieces: &[Buffer],
        flat: &Buffer,
        layout: &FlatLayout<'_>,
    ) -> Result<(), NcclError> {
        for ((piece, &length), &start) in pieces.iter().zip(layout.lengths).zip(&layout.starts) {
            if length > 0 {
                // SAFETY: both buffers hold `length` elements from these addresses, and live until the operation is done.
                let copied = unsafe {
                    driver::memcpy_dtod_async(flat.at(start), piece.at(0), 4 * length, self.stream)
                };
                copied.map_err(driver_failed)?;
            }
        }
        Ok(())
    }

    /// Runs `launch`, which queues NCCL calls on the stream, and waits for them.
    fn operation(
        &self,
        abort_check: AbortCheck<'_>,
        launch: impl FnOnce() -> Result<(), NcclError>,
    ) -> Result<(), NcclError> {
        // Inputs must be computed and the outputs' zeros written before NCCL's stream, which is not ordered with Burn's, may run.
        self.device
            .sync()
            .map_err(|error| NcclError::Driver(error.to_string()))?;
        // SAFETY: the context is alive. Another thread of the process may have made another one current for this thread's pool.
        unsafe { driver::ctx::set_current(self.context) }.map_err(driver_failed)?;
        let done = launch().and_then(|()| self.wait(abort_check));
        if done.is_err() {
            self.abort();
        }
        done
    }

    /// Waits for the stream.
    fn wait(&self, abort_check: AbortCheck<'_>) -> Result<(), NcclError> {
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
                if let Some(reason) = abort_check() {
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
        // SAFETY: everything was created by `init_rank` and is released once, with its context current. NCCL ends the communicator only after
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
