//! The documents of a source, divided into those to train on and those that are held out.
//!
//! A document is held out if the hash of the seed and its content, as a fraction, is below the share. A small source may have no such
//! document; then the one with the smallest hash is held out, and of a single document the end. This is decided when the
//! last document is known, so documents are buffered in order until one is held out.

use super::TokenizeFolderError;
use super::index::SplitEntry;
use super::split_writer::{ShardSettings, SplitWriter};

/// Tokens that may wait in memory for the first held-out document; beyond it only the document with the smallest hash waits.
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

/// Both splits of a source while they are written.
pub(super) struct Division<'a> {
    train: SplitWriter<'a>,
    eval: SplitWriter<'a>,
    fraction: f64,
    min_length: usize,
    waiting: Vec<Made>,
    waiting_tokens: usize,
}

impl<'a> Division<'a> {
    pub(super) fn new(settings: ShardSettings<'a>, fraction: f64, min_length: usize) -> Self {
        Self {
            train: SplitWriter::new("train", settings),
            eval: SplitWriter::new("eval", settings),
            fraction,
            min_length,
            waiting: Vec::new(),
            waiting_tokens: 0,
        }
    }

    /// Adds the next document.
    pub(super) fn push(&mut self, made: Made) -> Result<(), TokenizeFolderError> {
        if (made.draw as f64) < self.fraction * 2f64.powi(64) {
            self.eval.push(&made.samples)?;
            if self.eval.has_samples() {
                self.train_on(|_| true)?;
            }
            return Ok(());
        }
        if self.fraction == 0.0 || self.eval.has_samples() {
            return self.train.push(&made.samples);
        }
        self.waiting_tokens += made.tokens();
        self.waiting.push(made);
        if self.waiting_tokens > WAITING_TOKENS {
            let smallest = self.smallest();
            self.train_on(|made| Some(made.draw) != smallest)?;
        }
        Ok(())
    }

    /// The smallest hash of the documents that wait and have a sample.
    fn smallest(&self) -> Option<u64> {
        let with_samples = self.waiting.iter().filter(|made| !made.samples.is_empty());
        with_samples.map(|made| made.draw).min()
    }

    /// Writes the waiting documents that `choose` accepts to the training split.
    fn train_on(&mut self, choose: impl Fn(&Made) -> bool) -> Result<(), TokenizeFolderError> {
        for made in std::mem::take(&mut self.waiting) {
            if choose(&made) {
                self.train.push(&made.samples)?;
            } else {
                self.waiting.push(made);
            }
        }
        self.waiting_tokens = self.waiting.iter().map(Made::tokens).sum();
        Ok(())
    }

    /// Ends both splits: training, held-out. The held-out one is empty only if the share is 0, or without any sample.
    pub(super) fn finish(mut self) -> Result<(SplitEntry, SplitEntry), TokenizeFolderError> {
        if let Some(smallest) = self.smallest() {
            self.train_on(|made| made.draw != smallest)?;
            // Equal documents have equal hashes: all of them are held out.
            for made in std::mem::take(&mut self.waiting) {
                if self.train.has_samples() {
                    self.eval.push(&made.samples)?;
                } else {
                    let (train, eval) = self.cut(made.samples);
                    self.train.push(&train)?;
                    if !eval.is_empty() {
                        self.eval.push(&eval)?;
                    }
                }
            }
        }
        self.train_on(|_| true)?;
        Ok((self.train.finish()?, self.eval.finish()?))
    }

    /// Cuts the end off the samples of a source's only document; nothing if it is too short to be cut.
    fn cut(&self, mut samples: Vec<Vec<u32>>) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
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
