//! The documents of a source, divided into those to train on and those that are held out.
//!
//! A document is held out if the hash of the seed and its content, as a fraction, is below the share. A small source may have no such
//! document; then the one with the smallest hash is held out. Or it has no other: then the one with the largest hash is trained on. Of a single
//! document the end is held out. This is decided when the last document is known, so documents are buffered in order until there is one
//! of both kinds.

use super::TokenizeFolderError;
use super::index::SplitEntry;
use super::split_writer::{ShardSettings, SplitWriter};

/// Tokens that may wait in memory for the first document of the other split; beyond it only the document that may have to change its split waits.
const WAITING_TOKENS: usize = 16 << 20;

/// A tokenized document.
pub(super) struct Made {
    /// Hash of seed and content.
    pub(super) draw: u64,
    /// Its samples, `[CLS] … [SEP]` each; none if it is too short.
    pub(super) samples: Vec<Vec<u32>>,
}

impl Made {
    pub(super) fn tokens(&self) -> usize {
        self.samples.iter().map(Vec::len).sum()
    }
}

/// Documents of one split that wait for the first document of the other.
#[derive(Default)]
struct Waiting {
    documents: Vec<Made>,
    tokens: usize,
}

impl Waiting {
    fn push(&mut self, made: Made) {
        self.tokens += made.tokens();
        self.documents.push(made);
    }

    /// The hashes of the documents that have a sample.
    fn draws(&self) -> impl Iterator<Item = u64> {
        let with_samples = self
            .documents
            .iter()
            .filter(|made| !made.samples.is_empty());
        with_samples.map(|made| made.draw)
    }

    /// Takes the documents that `choose` accepts.
    fn take(&mut self, choose: impl Fn(&Made) -> bool) -> Vec<Made> {
        let all = std::mem::take(&mut self.documents).into_iter();
        let (taken, left) = all.partition(choose);
        self.documents = left;
        self.tokens = self.documents.iter().map(Made::tokens).sum();
        taken
    }
}

/// Both splits of a source while they are written.
pub(super) struct Division<'a> {
    train: SplitWriter<'a>,
    eval: SplitWriter<'a>,
    fraction: f64,
    min_length: usize,
    /// Documents to train on, while none with a sample is held out.
    to_train: Waiting,
    /// Documents to hold out, while there is none with a sample to train on.
    to_eval: Waiting,
    /// True once there is a document with a sample to train on; to hold out.
    has: [bool; 2],
}

impl<'a> Division<'a> {
    pub(super) fn new(settings: ShardSettings<'a>, fraction: f64, min_length: usize) -> Self {
        Self {
            train: SplitWriter::new("train", settings),
            eval: SplitWriter::new("eval", settings),
            fraction,
            min_length,
            to_train: Waiting::default(),
            to_eval: Waiting::default(),
            has: [false, fraction == 0.0],
        }
    }

    /// Adds the next document.
    pub(super) fn push(&mut self, made: Made) -> Result<(), TokenizeFolderError> {
        let is_held_out = (made.draw as f64) < self.fraction * 2f64.powi(64);
        self.has[usize::from(is_held_out)] |= !made.samples.is_empty();
        let [has_train, has_eval] = self.has;
        match is_held_out {
            true => self.to_eval.push(made),
            false => self.to_train.push(made),
        }
        if has_eval {
            self.train_on(|_| true)?;
        } else if self.to_train.tokens > WAITING_TOKENS {
            let smallest = self.to_train.draws().min();
            self.train_on(|made| Some(made.draw) != smallest)?;
        }
        if has_train {
            self.hold_out(|_| true)?;
        } else if self.to_eval.tokens > WAITING_TOKENS {
            let largest = self.to_eval.draws().max();
            self.hold_out(|made| Some(made.draw) != largest)?;
        }
        Ok(())
    }

    /// Writes the waiting documents that `choose` accepts to the training split.
    fn train_on(&mut self, choose: impl Fn(&Made) -> bool) -> Result<(), TokenizeFolderError> {
        let mut taken = self.to_train.take(choose).into_iter();
        taken.try_for_each(|made| self.train.push(&made.samples))
    }

    /// Writes the waiting documents that `choose` accepts to the held-out split.
    fn hold_out(&mut self, choose: impl Fn(&Made) -> bool) -> Result<(), TokenizeFolderError> {
        let mut taken = self.to_eval.take(choose).into_iter();
        taken.try_for_each(|made| self.eval.push(&made.samples))
    }

    /// Ends both splits: training, held-out. One is empty only if the share is 0, or without two samples.
    pub(super) fn finish(mut self) -> Result<(SplitEntry, SplitEntry), TokenizeFolderError> {
        // Equal documents have equal hashes, and change their split together. Only one kind of documents waits.
        let (smallest, largest) = (self.to_train.draws().min(), self.to_eval.draws().max());
        self.train_on(|made| Some(made.draw) != smallest)?;
        self.hold_out(|made| Some(made.draw) != largest)?;
        for made in std::mem::take(&mut self.to_train.documents) {
            if self.train.has_samples() {
                self.eval.push(&made.samples)?;
            } else {
                self.to_eval.push(made);
            }
        }
        for made in std::mem::take(&mut self.to_eval.documents) {
            if self.eval.has_samples() {
                self.train.push(&made.samples)?;
            } else {
                self.to_train.push(made);
            }
        }
        // A single document, maybe several times: each copy is cut at the same place.
        for made in std::mem::take(&mut self.to_train.documents) {
            let (train, eval) = self.cut_tail(made.samples);
            self.train.push(&train)?;
            if !eval.is_empty() {
                self.eval.push(&eval)?;
            }
        }
        Ok((self.train.finish()?, self.eval.finish()?))
    }

    /// Cuts the end off the samples of a source's only document; nothing if it is too short to be cut.
    fn cut_tail(&self, mut samples: Vec<Vec<u32>>) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        if samples.len() > 1 {
            let held_out = (samples.len() as f64 * self.fraction).ceil() as usize;
            let eval = samples.split_off(samples.len() - held_out.clamp(1, samples.len() - 1));
            return (samples, eval);
        }
        let [sample] = &samples[..] else {
            return (samples, Vec::new());
        };
        let (content, least) = (sample.len() - 2, self.min_length.saturating_sub(2).max(1));
        let held_out = ((content as f64 * self.fraction).ceil() as usize).max(least);
        if held_out + least > content {
            return (samples, Vec::new());
        }
        let (first, last) = (sample[0], sample[sample.len() - 1]);
        let at = sample.len() - 1 - held_out;
        let train = [&sample[..at], &[last]].concat();
        let eval = [&[first], &sample[at..]].concat();
        (vec![train], vec![eval])
    }
}
