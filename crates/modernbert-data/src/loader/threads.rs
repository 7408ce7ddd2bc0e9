//! Rows prepared ahead of the training step, on separate threads.

#[cfg(test)]
mod tests;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::stream::Share;
use super::{LoaderError, MlmItem, Position, TrainStream};

/// Rows prepared ahead by each thread.
const PREFETCH: usize = 8;

/// Endless training data for burn-train, prepared ahead on other threads.
///
/// Thread `t` of `n` plans all rows (lengths alone, which is cheap) and makes every `n`-th, and the receiver takes one row from each
/// cyclically: the order is the stream's for any number of threads.
#[derive(Clone)]
pub struct TrainLoader {
    stream: TrainStream,
    start: Start,
    threads: usize,
    total_tokens: usize,
}

impl TrainLoader {
    /// A loader over `stream` from its first row, with one thread; `total_tokens` is the total for progress.
    pub fn new(stream: TrainStream, total_tokens: u64) -> Self {
        Self {
            stream,
            start: Start::Row(0),
            threads: 1,
            total_tokens: total_tokens as usize,
        }
    }

    /// The same with `threads` threads; 0 counts as 1.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The same from `position` on.
    ///
    /// # Errors
    /// A position of other data or settings.
    pub fn from_position(mut self, position: Position) -> Result<Self, LoaderError> {
        self.stream.steps_from(&position)?;
        self.start = Start::Position(Box::new(position));
        Ok(self)
    }

    /// The same from row number `row` on, counted from 0; the rows before it are packed again, without reading their tokens.
    #[must_use]
    pub fn starting_at(mut self, row: u64) -> Self {
        self.start = Start::Row(row);
        self
    }
}

/// Start of a loader.
#[derive(Clone)]
enum Start {
    Row(u64),
    Position(Box<Position>),
}

type Made = Result<MlmItem, LoaderError>;

impl TrainLoader {
    /// Starts the threads; the rows come in the stream's order.
    pub fn rows(&self) -> Prefetched {
        let threads = (0..self.threads).map(|index| {
            let (stream, start) = (self.stream.clone(), self.start.clone());
            let share = Share {
                index,
                of: self.threads,
            };
            Thread::spawn(move |sender| produce(&stream, start, share, sender))
        });
        Prefetched {
            threads: threads.collect(),
            next: 0,
            tokens: 0,
            total: self.total_tokens,
        }
    }

    /// Total tokens, for progress.
    pub fn total_tokens(&self) -> usize {
        self.total_tokens
    }
}

/// Makes rows until the first error, which the trainer receives, or until the receiver is dropped.
fn produce(stream: &TrainStream, start: Start, share: Share, sender: &SyncSender<Made>) {
    let position = match start {
        Start::Position(position) => Ok(*position),
        Start::Row(0) => Ok(stream.start()),
        Start::Row(row) => stream.seek(row),
    };
    let steps = position.and_then(|position| stream.share(&position, share));
    let mut steps = match steps {
        Ok(steps) => steps,
        Err(error) => return drop(sender.send(Err(error))),
    };
    loop {
        let item = steps.next_row();
        let failed = item.is_err();
        if sender.send(item).is_err() || failed {
            return;
        }
    }
}

struct Thread {
    receiver: Option<Receiver<Made>>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts a thread whose rows `work` sends.
    fn spawn(work: impl FnOnce(&SyncSender<Made>) + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(PREFETCH);
        Self {
            receiver: Some(receiver),
            handle: Some(std::thread::spawn(move || work(&sender))),
        }
    }

    /// Reason why the thread ended without an error.
    fn obituary(&mut self) -> LoaderError {
        let panic = self.handle.take().and_then(|handle| handle.join().err());
        let words = panic.as_ref().and_then(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied())
        });
        LoaderError::Thread(words.unwrap_or("no reason was given").to_owned())
    }
}

/// Rows in the stream's order, made ahead on other threads; the threads end when this is dropped.
pub struct Prefetched {
    threads: Vec<Thread>,
    next: usize,
    tokens: usize,
    total: usize,
}

impl Iterator for Prefetched {
    type Item = Result<MlmItem, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let thread = &mut self.threads[self.next];
        // Its end was reported before.
        let receiver = thread.receiver.as_ref()?;
        let made = match receiver.recv() {
            Ok(made) => made,
            Err(_) => Err(thread.obituary()),
        };
        Some(match made {
            Ok(item) => {
                self.tokens += item.real_tokens;
                self.next = (self.next + 1) % self.threads.len();
                Ok(item)
            }
            Err(error) => {
                thread.receiver = None;
                Err(error)
            }
        })
    }
}

impl Prefetched {
    /// Tokens of the received rows without padding, at most the total, and the total.
    pub fn tokens(&self) -> (usize, usize) {
        (self.tokens.min(self.total), self.total)
    }
}

impl Drop for Prefetched {
    /// Threads that wait to send a row see the closed channel and end; none outlives the iterator.
    fn drop(&mut self) {
        for thread in &mut self.threads {
            thread.receiver = None;
        }
        for thread in &mut self.threads {
            if let Some(handle) = thread.handle.take() {
                // A panic was either reported as an error or concerns rows that are not needed any more.
                drop(handle.join());
            }
        }
    }
}
