//! Transports of gradients between the ranks, and the order in which gradients are summed.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_nccl::Communicator;
use ranks::{RankError, Ranks, tree};
use std::cell::RefCell;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::error::EngineError;

/// The order in which the micro-batches of a step are summed over ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SumOrder {
    /// The binary [tree](ranks::tree): the same bits for any number of ranks.
    #[default]
    Tree,
    /// Each rank sums its micro-batches, the transport sums the ranks: rank 0 to the last over the host, an order of its own choice in NCCL. The
    /// bits depend on the number of ranks, and with NCCL on its version and on the links between GPUs.
    Library,
}

/// Adds vectors of one length, given in the order of the ranks.
pub type SumShares<'a> = &'a mut dyn FnMut(Vec<Tensor<1>>) -> Tensor<1>;

/// A transport of vectors of f32 between the devices of the ranks. All ranks call the same operations in the same order.
pub trait Transport: Debug + Send + Sync {
    /// Description for a log: "through host memory".
    fn name(&self) -> &'static str;

    /// Sums vectors of all ranks by `sum`. Each vector consists of pieces of `lengths` on `device`; rank `i` brings `receive[i]` of them. `sum` receives
    /// a rank's share of all vectors, in the order of the ranks, and must add element by element. Returns the pieces of the result, the same on every
    /// rank.
    ///
    /// # Errors
    /// A rank that ended or failed; a device or link that can't be used.
    fn all_reduce_by(
        &self,
        ranks: &Ranks,
        vectors: Vec<Vec<Tensor<1>>>,
        receive: &[usize],
        sum: SumShares<'_>,
        to: (&[usize], &Device),
    ) -> Result<Vec<Tensor<1>>, EngineError>;

    /// The sums of the tensors of all ranks, in the order of [`SumOrder::Library`].
    ///
    /// # Errors
    /// As [`Self::all_reduce_by`].
    fn all_reduce(
        &self,
        ranks: &Ranks,
        pieces: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, EngineError>;
}

/// The sum of a step's gradients over ranks: a transport and an order.
#[derive(Clone, Debug)]
pub struct GradientSum {
    transport: Arc<dyn Transport>,
    order: SumOrder,
}

impl Default for GradientSum {
    /// Through host memory, in the order of the tree.
    fn default() -> Self {
        Self::new(Arc::new(Host), SumOrder::Tree)
    }
}

impl GradientSum {
    /// By this transport, in this order.
    pub fn new(transport: Arc<dyn Transport>, order: SumOrder) -> Self {
        Self { transport, order }
    }

    /// Description for a log: "summed by NCCL in the order of the tree".
    pub fn describe(&self) -> String {
        let order = match self.order {
            SumOrder::Tree => "in the order of the tree",
            SumOrder::Library => "in the library's order",
        };
        format!("summed {} {order}", self.transport.name())
    }

    /// Sums the micro-batches of a step over all ranks. `parts` holds this rank's sums of [`tree::subtrees`] of its [share](tree::range_of_rank) of the
    /// `leaves` micro-batches, each a vector in pieces `[lengths[i]]` in f32. Every rank receives the same sum, in the same pieces.
    ///
    /// # Errors
    /// A rank that ended or failed; a device or link that can't be used.
    pub fn sum(
        &self,
        ranks: &Ranks,
        leaves: usize,
        parts: Vec<Vec<Tensor<1>>>,
        (lengths, device): (&[usize], &Device),
    ) -> Result<Vec<Tensor<1>>, EngineError> {
        let zeros = |length| Tensor::zeros([length], (device, DType::F32));
        if self.order == SumOrder::Library {
            let own = parts.into_iter().reduce(|sum, part| {
                let both = sum.into_iter().zip(part);
                both.map(|(sum, part)| sum + part).collect()
            });
            let own = own.unwrap_or_else(|| lengths.iter().map(|&length| zeros(length)).collect());
            return self.transport.all_reduce(ranks, own);
        }
        if leaves == 0 {
            return Ok(lengths.iter().map(|&length| zeros(length)).collect());
        }
        // Each rank sums a share of the numbers: it sends and receives about as much as in a ring.
        let size = ranks.size();
        let ranges = |rank| tree::subtrees(leaves, &tree::range_of_rank(leaves, rank, size));
        let receive: Vec<usize> = (0..size).map(|rank| ranges(rank).len()).collect();
        let mut sum = |received: Vec<Tensor<1>>| {
            let length = received.first().map_or(0, |part| part.dims()[0]);
            let known = (0..size).flat_map(ranges).zip(received).collect();
            let sum = tree::sum(leaves, known, |left: &mut Tensor<1>, right| {
                *left = left.clone() + right;
            });
            sum.unwrap_or_else(|| zeros(length))
        };
        let to = (lengths, device);
        (self.transport).all_reduce_by(ranks, parts, &receive, &mut sum, to)
    }
}

/// Through host memory and the connection of the ranks, hence through rank 0.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Host {
    /// The numbers of a vector in pieces.
    fn read(pieces: Vec<Tensor<1>>) -> Result<Vec<f32>, EngineError> {
        let mut numbers = Vec::new();
        for piece in pieces {
            let read = piece.try_into_vec_as::<f32>();
            numbers.append(&mut read.map_err(|error| EngineError::Device(error.to_string()))?);
        }
        Ok(numbers)
    }

    /// Tensors of these lengths from numbers one after the other.
    fn pieces(mut numbers: Vec<f32>, lengths: &[usize], device: &Device) -> Vec<Tensor<1>> {
        let mut pieces: Vec<_> = lengths
            .iter()
            .rev()
            .map(|&length| {
                let own = numbers.split_off(numbers.len() - length);
                Tensor::from_data(TensorData::new(own, [length]), device)
            })
            .collect();
        pieces.reverse();
        pieces
    }
}

impl Transport for Host {
    fn name(&self) -> &'static str {
        "through host memory"
    }

    fn all_reduce_by(
        &self,
        ranks: &Ranks,
        vectors: Vec<Vec<Tensor<1>>>,
        receive: &[usize],
        sum: SumShares<'_>,
        (lengths, device): (&[usize], &Device),
    ) -> Result<Vec<Tensor<1>>, EngineError> {
        let vectors: Result<Vec<_>, _> = vectors.into_iter().map(Self::read).collect();
        let vectors = vectors?;
        let (size, total) = (ranks.size(), lengths.iter().sum());
        let shares: Vec<_> = (0..size)
            .map(|rank| tree::range_of_rank(total, rank, size))
            .collect();
        let own = shares[ranks.rank()].len();
        let mut numbers = Vec::new();
        for share in &shares {
            for vector in &vectors {
                numbers.extend_from_slice(&vector[share.clone()]);
            }
        }
        let of = |share: &Range<usize>| vectors.len() * share.len();
        let send: Vec<usize> = shares.iter().map(of).collect();
        drop(vectors);
        let counts: Vec<usize> = receive.iter().map(|parts| parts * own).collect();
        let received = ranks.exchange_numbers(&numbers, &send, &counts)?;
        let parts = vec![own; receive.iter().sum()];
        let sum = sum(Self::pieces(received, &parts, device));
        let counts: Vec<usize> = shares.iter().map(Range::len).collect();
        let gathered = ranks.gather_numbers(&Self::read(vec![sum])?, &counts)?;
        Ok(Self::pieces(gathered, lengths, device))
    }

    fn all_reduce(
        &self,
        ranks: &Ranks,
        pieces: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, EngineError> {
        let device = pieces.first().map(Tensor::device).unwrap_or_default();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.dims()[0]).collect();
        let length: usize = lengths.iter().sum();
        let all = ranks.gather_numbers(&Self::read(pieces)?, &vec![length; ranks.size()])?;
        let mut sum = all[..length].to_vec();
        for other in all[length..].chunks(length.max(1)) {
            sum.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
        Ok(Self::pieces(sum, &lengths, &device))
    }
}

/// Between GPUs, by NCCL.
#[derive(Debug)]
pub struct Nccl(Communicator);

impl Nccl {
    /// Joins all `ranks`, each with its GPU `device`. Every rank must call it.
    ///
    /// # Errors
    /// A program built without NCCL, a library that is not there, GPUs that can't reach each other: the same error on every rank.
    pub fn connect(ranks: &Ranks, device: &Device) -> Result<Self, EngineError> {
        let failed = |error: burn_nccl::NcclError| EngineError::Device(error.to_string());
        let id = match ranks.is_first() {
            true => burn_nccl::unique_id().map_err(failed)?.to_vec(),
            false => Vec::new(),
        };
        let id = ranks.broadcast(&id)?;
        let id = (*id)
            .try_into()
            .map_err(|_| RankError::Length { rank: 0 })?;
        let joined = Communicator::init_rank(id, ranks.rank(), ranks.size(), device);
        Ok(Self(joined.map_err(failed)?))
    }

    /// Runs an operation, which ends with the reason of a rank that has ended.
    fn watched<T>(
        ranks: &Ranks,
        operation: impl FnOnce(burn_nccl::AbortCheck<'_>) -> Result<T, burn_nccl::NcclError>,
    ) -> Result<T, EngineError> {
        let ended = RefCell::new(None);
        let watch = || {
            let error = ranks.ended()?;
            let text = error.to_string();
            *ended.borrow_mut() = Some(error);
            Some(text)
        };
        let done = operation(&watch);
        match (done, ended.into_inner()) {
            (Ok(result), _) => Ok(result),
            (Err(_), Some(error)) => Err(error.into()),
            (Err(error), None) => Err(EngineError::Device(error.to_string())),
        }
    }
}

impl Transport for Nccl {
    fn name(&self) -> &'static str {
        "by NCCL"
    }

    fn all_reduce_by(
        &self,
        ranks: &Ranks,
        vectors: Vec<Vec<Tensor<1>>>,
        receive: &[usize],
        sum: SumShares<'_>,
        (lengths, _): (&[usize], &Device),
    ) -> Result<Vec<Tensor<1>>, EngineError> {
        Self::watched(ranks, |watch| {
            (self.0).all_reduce_by(vectors, lengths, receive, sum, watch)
        })
    }

    fn all_reduce(
        &self,
        ranks: &Ranks,
        pieces: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, EngineError> {
        Self::watched(ranks, |watch| self.0.all_reduce(pieces, watch))
    }
}
