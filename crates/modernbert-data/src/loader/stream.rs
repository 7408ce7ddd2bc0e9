//! The order in which samples are drawn, packed and masked: a pure function of the shards and the settings.

use std::collections::VecDeque;
use std::sync::Arc;

use packed_layout::{Dropout, DropoutRates, SequenceLayout};

use super::item::RowBatch;
use super::position::LoaderSettings;
use super::source::{Drawn, Draws, Orders, Piece};
use super::{DataSource, LengthWarmup, LoaderError, LoaderOptions, MlmItem, Position};
use crate::mask::{MaskKey, Masker, label_cap};
use crate::pack::{BestFit, FilledRow, PackOptions, PackStats, PackedRow};
use crate::shard::{Cut, Shard};

/// Endless masked rows, each a micro-batch; a cheap handle that [`TrainSteps`] are made from.
#[derive(Clone, Debug)]
pub struct TrainStream {
    pub(super) sources: Arc<[DataSource]>,
    masker: Masker,
    options: LoaderOptions,
    orders: Arc<Orders>,
    settings: Arc<LoaderSettings>,
    dropout: Option<DropoutRates>,
    rank: usize,
    ranks: usize,
}

/// The rows that one reader of a stream makes; every reader plans all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl TrainStream {
    /// A stream over one shard, whose samples are taken as they are.
    ///
    /// # Errors
    /// A shard without samples.
    pub fn new(
        shard: Arc<Shard>,
        masker: Masker,
        options: LoaderOptions,
    ) -> Result<Self, LoaderError> {
        let name = shard.path().display().to_string();
        let source = DataSource::new(name, 1.0, [shard], Cut::WHOLE);
        Self::of_sources(vec![source], masker, options)
    }

    /// A stream over several sources in their proportions.
    ///
    /// # Errors
    /// No source, an empty one, a proportion that is not above 0.
    pub fn of_sources(
        sources: Vec<DataSource>,
        masker: Masker,
        options: LoaderOptions,
    ) -> Result<Self, LoaderError> {
        if sources.is_empty() {
            return Err(LoaderError::NoSources);
        }
        for source in &sources {
            source.check()?;
        }
        Ok(Self {
            settings: Arc::new(LoaderSettings::of(&options, &sources)),
            sources: sources.into(),
            masker,
            options,
            orders: Arc::default(),
            dropout: None,
            rank: 0,
            ranks: 1,
        })
    }

    /// The same rows, each with its own key for dropout at these rates.
    #[must_use]
    pub fn with_dropout(mut self, rates: DropoutRates) -> Self {
        self.dropout = (!rates.is_none()).then_some(rates);
        self
    }

    /// The share of one of several processes or devices: rows `rank`, `rank + ranks`, … of the same stream.
    ///
    /// # Errors
    /// A rank that is not below the number of ranks.
    pub fn for_rank(mut self, rank: usize, ranks: usize) -> Result<Self, LoaderError> {
        if rank >= ranks {
            return Err(LoaderError::Rank { rank, ranks });
        }
        (self.rank, self.ranks) = (rank, ranks);
        Ok(self)
    }

    /// The position before the first row.
    pub fn start(&self) -> Position {
        Position {
            seed: self.options.seed,
            epoch: 0,
            row: 0,
            packed_from: 0,
            drawn: vec![Drawn::default(); self.sources.len()],
            held: Vec::new(),
            settings: (*self.settings).clone(),
        }
    }

    /// The position before `row`, found by packing everything before it again; no token is read.
    ///
    /// # Errors
    /// As [`TrainSteps::next_row`].
    pub fn seek(&self, row: u64) -> Result<Position, LoaderError> {
        let mut plan = RowPlan::new(self, &self.start())?;
        while plan.next + (plan.rows.len() as u64) <= row {
            plan.next_batch()?;
        }
        Ok(plan.batch.at(row))
    }

    /// The rows of this rank from the first one on.
    ///
    /// # Errors
    /// Settings the packer can't work with.
    pub fn steps(&self) -> Result<TrainSteps, LoaderError> {
        self.steps_from(&self.start())
    }

    /// The rows of this rank from a position on: those of an uninterrupted stream.
    ///
    /// # Errors
    /// A position of other data or settings.
    pub fn steps_from(&self, position: &Position) -> Result<TrainSteps, LoaderError> {
        self.share(position, Share { index: 0, of: 1 })
    }

    pub(super) fn share(
        &self,
        position: &Position,
        share: Share,
    ) -> Result<TrainSteps, LoaderError> {
        Ok(TrainSteps {
            plan: RowPlan::new(self, position)?,
            from: position.row,
            share,
            stream: self.clone(),
        })
    }
}

/// The assignment of samples to rows.
struct RowPlan {
    packer: BestFit<Draws, Piece>,
    start: Arc<Position>,
    samples: u64,
    batch: RowBatch,
    rows: VecDeque<FilledRow<Piece>>,
    /// Number of the first of `rows`.
    next: u64,
    length_warmup: Option<LengthWarmup>,
}

impl RowPlan {
    fn new(stream: &TrainStream, position: &Position) -> Result<Self, LoaderError> {
        let (options, sources) = (&stream.options, &stream.sources);
        position.check(options.seed, &stream.settings, sources)?;
        for shard in sources.iter().flat_map(|source| source.samples.shards()) {
            shard.check_length()?;
        }
        let per_step = options.row_length * options.micro_batches;
        // Sequences of the mixture have this mean length: each source gives tokens in its proportion.
        let total: f64 = sources.iter().map(|source| source.proportion).sum();
        let sequences: f64 = sources
            .iter()
            .map(|source| {
                let samples = &source.samples;
                source.proportion / total * samples.len() as f64 / samples.tokens().max(1) as f64
            })
            .sum();
        let source_batch = ((per_step as f64 * sequences) as usize).max(1);
        let pack = PackOptions {
            sequences: options.sequences,
            ..PackOptions::new(
                options.micro_batches,
                options.row_length,
                source_batch,
                options.pad_id,
            )
        };
        let draws = Draws::new(
            sources.clone(),
            options.seed,
            position.drawn.clone(),
            stream.orders.clone(),
        );
        let held = position.held.iter().map(|&(source, sample)| Piece {
            source,
            sample,
            tokens: sources[source as usize].samples.sample_len(sample) as u32,
        });
        let start = Arc::new(position.clone());
        Ok(Self {
            packer: BestFit::new(pack, draws, held.collect())?,
            samples: sources[0].samples.len(),
            batch: RowBatch {
                epoch: position.epoch,
                start: start.clone(),
            },
            start,
            rows: VecDeque::new(),
            next: position.packed_from,
            length_warmup: options.length_warmup,
        })
    }

    /// Packs the rows of the next batch. Rows of the batch before that were not taken are skipped.
    fn next_batch(&mut self) -> Result<(), LoaderError> {
        let first = self.next + self.rows.len() as u64;
        let longest = self.longest(first);
        self.packer.set_longest(longest);
        self.packer.source_mut().set_longest(longest);
        let drawn = self.packer.source().drawn().to_vec();
        let start = Position {
            row: first,
            packed_from: first,
            epoch: drawn[0].samples / self.samples,
            held: self
                .packer
                .held()
                .map(|piece| (piece.source, piece.sample))
                .collect(),
            drawn,
            ..(*self.start).clone()
        };
        let rows = self.packer.next();
        self.packer.source().check()?;
        let rows = rows.ok_or(LoaderError::Ended)??;
        self.next = first;
        self.batch = RowBatch {
            start: Arc::new(start),
            epoch: self.packer.source().drawn()[0].samples / self.samples,
        };
        self.rows = rows.into();
        for piece in self.rows.iter_mut().flat_map(|row| &mut row.sequences) {
            piece.tokens = piece.tokens.min(u32::try_from(longest).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// The longest sequence of the rows from number `row` on, which are packed together.
    fn longest(&self, row: u64) -> usize {
        let before = row.saturating_mul(self.packer.options().row_length as u64);
        self.length_warmup
            .map_or(usize::MAX, |warmup| warmup.length(before))
    }

    /// The next row and its number.
    fn next_row(&mut self) -> Result<(u64, FilledRow<Piece>), LoaderError> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                self.next += 1;
                return Ok((self.next - 1, row));
            }
            self.next_batch()?;
        }
    }
}

/// Iterator over the rows of a stream.
pub struct TrainSteps {
    stream: TrainStream,
    plan: RowPlan,
    from: u64,
    share: Share,
}

impl TrainSteps {
    /// The next row of this rank.
    ///
    /// # Errors
    /// A sample longer than a row, or more labels than a row's cap allows.
    pub fn next_row(&mut self) -> Result<MlmItem, LoaderError> {
        let (rank, ranks) = (self.stream.rank as u64, self.stream.ranks as u64);
        loop {
            let (number, row) = self.plan.next_row()?;
            if number < self.from || number % ranks != rank {
                continue;
            }
            // Counted from this reader's start, so that the first row is the first reader's.
            let mine = (number - self.from) / ranks % self.share.of as u64;
            if mine == self.share.index as u64 {
                return self.make(number, row);
            }
        }
    }

    /// The rows of a full step, each with the labelled tokens of all of them as its denominator.
    ///
    /// # Errors
    /// As [`Self::next_row`].
    pub fn next_step(&mut self) -> Result<Vec<MlmItem>, LoaderError> {
        let rows = self.stream.options.micro_batches;
        let mut items: Vec<MlmItem> = (0..rows)
            .map(|_| self.next_row())
            .collect::<Result<_, _>>()?;
        MlmItem::share_denominator(&mut items);
        Ok(items)
    }

    /// Fill rate of the rows packed so far, those of other ranks and threads included.
    pub fn stats(&self) -> PackStats {
        self.plan.packer.stats()
    }

    fn make(&self, number: u64, row: FilledRow<Piece>) -> Result<MlmItem, LoaderError> {
        let TrainStream {
            sources,
            masker,
            options,
            ..
        } = &self.stream;
        let sequences = row.sequences.iter().map(|piece| {
            let sample = sources[piece.source as usize].samples.read(piece.sample)?;
            Ok(beginning(sample, piece.tokens as usize))
        });
        let sequences = sequences.collect::<Result<Vec<_>, LoaderError>>()?;
        let pack = self.plan.packer.options();
        let row = PackedRow::new(sequences, pack);
        let key = MaskKey {
            seed: options.seed,
            epoch: 0,
            row: number,
        };
        let cap = label_cap(options.row_length, masker.mask_prob());
        let masked = masker.mask_within(&row, key, cap)?;
        let labelled = masked.labels.len();
        Ok(MlmItem {
            labels: masked.capped(cap)?,
            input_ids: masked.input_ids,
            layout: SequenceLayout::from_cu_seqlens(row.cu_seqlens)?,
            real_tokens: row.real_tokens,
            labelled,
            step_labelled: labelled,
            row: number,
            dropout: self.stream.dropout.map(|rates| Dropout {
                rates,
                seed: options.seed,
                batch: number,
            }),
            batch: Some(self.plan.batch.clone()),
        })
    }
}

/// The first `tokens` tokens of a sample, the last of which is the sample's last token.
fn beginning(mut sample: Vec<u32>, tokens: usize) -> Vec<u32> {
    if let Some(&last) = sample.last()
        && tokens < sample.len()
        && tokens > 0
    {
        sample.truncate(tokens);
        sample[tokens - 1] = last;
    }
    sample
}
