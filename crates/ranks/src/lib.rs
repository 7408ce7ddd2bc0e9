//! The processes of one data-parallel run.
//!
//! A run has `size` processes, the *ranks*. Every rank holds the whole model and computes the gradients of its share of a step's
//! micro-batches; the gradients are summed over ranks, and every rank then makes the same update.
//!
//! | module | contents |
//! |---|---|
//! | [`World`] | the rank of a process and the size of its run, from the environment of torchrun, SLURM, MPI or Kubernetes |
//! | [`Ranks`] | the connection: all-gather, all-to-all, broadcast, and errors that name the rank at fault |
//! | [`tree`] | the fixed binary tree in which micro-batches are summed |
//! | [`spawn`] | starting the ranks of one machine |
//!
//! # Results do not depend on the number of ranks
//!
//! Floating-point addition is not associative, so a sum has the same bits only if it is made in the same order. The order here is a
//! binary tree over the micro-batches of a step (see [`tree`]), which depends on their number alone. A rank sums the subtrees
//! that it holds completely, ranks exchange these partial sums, and the rest of the tree is summed after the exchange.
//!
//! # Transport
//!
//! Rank 0 listens at `MASTER_ADDR:MASTER_PORT`, the others connect. Messages pass through rank 0: losses, results of evaluations and, where the
//! ranks have no faster transport such as NCCL, gradients. A rank that ends, fails or does not answer within
//! the time limit ends all ranks with an error that names it.

mod error;
mod hub;
pub mod spawn;
pub mod tree;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::time::Duration;

pub use error::{RankError, WorldError};
use hub::Link;
pub use world::World;

/// A setting on which all ranks must agree, with its value on this rank.
pub type Term = (String, String);

/// Settings of a connection.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Time that ranks wait for each other at the start.
    pub start: Duration,
    /// Time that a rank waits for the others in a collective operation: longer than a step, an evaluation and a checkpoint together.
    pub silence: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(120),
            silence: Duration::from_secs(600),
        }
    }
}

/// The connection of this process to all ranks of its run.
///
/// Collective operations must be called by all ranks in the same order. They block until all ranks have called them.
#[derive(Debug)]
pub struct Ranks {
    rank: usize,
    size: usize,
    /// `None` for the only rank.
    link: Option<Mutex<Link>>,
}

impl Ranks {
    /// A run of one process.
    pub fn single() -> Self {
        Self {
            rank: 0,
            size: 1,
            link: None,
        }
    }

    /// Connects to the other ranks of `world`. All ranks must give the same `terms`.
    ///
    /// # Errors
    /// An address that can't be used; ranks that are missing after [`ConnectOptions::start`], present twice, or of a world of another
    /// size; terms that differ, with both values.
    pub fn connect(
        world: &World,
        terms: &[Term],
        options: &ConnectOptions,
    ) -> Result<Self, RankError> {
        let link = match world.size {
            1 => None,
            _ => Some(Mutex::new(Link::connect(world, terms, options)?)),
        };
        Ok(Self {
            rank: world.rank,
            size: world.size,
            link,
        })
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns whether this is the rank that shows and writes results.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Returns whether the run has more than one rank.
    pub fn is_several(&self) -> bool {
        self.size > 1
    }

    /// The messages of all ranks, in the order of the ranks.
    ///
    /// # Errors
    /// A rank that ended, failed, is late, or called another operation.
    pub fn all_gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
        match &self.link {
            None => Ok(vec![message.to_vec()]),
            Some(link) => lock(link).all_gather(message),
        }
    }

    /// Sends message `i` of `messages` to rank `i` and returns the messages to this rank, in the order of the ranks.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    ///
    /// # Panics
    /// Unless there is a message for every rank.
    pub fn all_to_all(&self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RankError> {
        assert_eq!(messages.len(), self.size, "a message for every rank");
        match &self.link {
            None => Ok(messages),
            Some(link) => lock(link).all_to_all(messages),
        }
    }

    /// Rank 0's message, on every rank; the others' messages are ignored.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    pub fn broadcast(&self, message: &[u8]) -> Result<Vec<u8>, RankError> {
        let message = if self.is_first() { message } else { &[] };
        let mut all = self.all_gather(message)?;
        Ok(all.swap_remove(0))
    }

    /// Waits until every rank has called this function.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    pub fn barrier(&self) -> Result<(), RankError> {
        self.all_gather(&[]).map(|_| ())
    }

    /// Sends `send[i]` of the `numbers`, in order, to rank `i` and returns the `receive[i]` numbers from each rank `i`, in the order of the
    /// ranks.
    ///
    /// # Errors
    /// As [`Self::all_gather`]; another count of numbers than the expected one.
    ///
    /// # Panics
    /// Unless there is a count for every rank, and enough numbers.
    pub fn exchange_numbers(
        &self,
        numbers: &[f32],
        send: &[usize],
        receive: &[usize],
    ) -> Result<Vec<f32>, RankError> {
        let mut rest = numbers;
        let messages = send.iter().map(|&count| {
            let (own, others) = rest.split_at(count);
            rest = others;
            wire::bytes_of(own.iter().copied())
        });
        let received = self.all_to_all(messages.collect())?;
        joined(&received, receive)
    }

    /// The numbers of all ranks, in the order of the ranks; rank `i` gives `counts[i]` of them.
    ///
    /// # Errors
    /// As [`Self::exchange_numbers`].
    pub fn gather_numbers(&self, numbers: &[f32], counts: &[usize]) -> Result<Vec<f32>, RankError> {
        let all = self.all_gather(&wire::bytes_of(numbers.iter().copied()))?;
        joined(&all, counts)
    }

    /// The error that has ended the run on another rank, if one is known, without waiting. For work that does not use this connection and
    /// would wait forever for a rank that is gone.
    pub fn ended(&self) -> Option<RankError> {
        lock(self.link.as_ref()?).ended()
    }

    /// Tells the other ranks why this one ends: each of them returns [`RankError::Failed`] from its next operation.
    pub fn leave(&self, reason: &str) {
        if let Some(link) = &self.link {
            lock(link).leave(reason);
        }
    }
}

/// The numbers of each rank's message, one after the other.
fn joined(messages: &[Vec<u8>], counts: &[usize]) -> Result<Vec<f32>, RankError> {
    let mut all = Vec::with_capacity(counts.iter().sum());
    for (rank, (message, &count)) in messages.iter().zip(counts).enumerate() {
        let before = all.len();
        all.extend(wire::floats(message));
        if all.len() != before + count {
            return Err(RankError::Length { rank });
        }
    }
    Ok(all)
}

fn lock(link: &Mutex<Link>) -> std::sync::MutexGuard<'_, Link> {
    // A panic inside an operation leaves the connection unusable, not the lock.
    link.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
