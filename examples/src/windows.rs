//! Windows of records: the records that are computed together, or fewer when a pipe pauses.

use anyhow::Context;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::input::InputRecord;

/// Time without a row after which a pipe counts as paused: the window is closed and computed.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time for which a window of a pipe is open.
const OPEN: Duration = Duration::from_secs(1);
/// Rows that are read ahead of a pipe's window; few, because a row may be large.
const AHEAD: usize = 16;

type Item = anyhow::Result<InputRecord>;

/// Source of the records.
pub(crate) enum RecordSource {
    /// Read on demand: arguments and files.
    Here(Box<dyn Iterator<Item = Item>>),
    /// Read by a thread: pipes, whose writer may pause.
    Thread(Receiver<Item>),
}

impl RecordSource {
    pub(crate) fn here(records: impl Iterator<Item = Item> + 'static) -> Self {
        Self::Here(Box::new(records))
    }

    /// Starts the thread that reads.
    pub(crate) fn thread(
        records: impl Iterator<Item = Item> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, receiver) = sync_channel(AHEAD);
        let read = move || {
            for record in records {
                if sender.send(record).is_err() {
                    return;
                }
            }
        };
        let named = std::thread::Builder::new().name("input".into());
        named
            .spawn(read)
            .context("the thread that reads the input can't be started")?;
        Ok(Self::Thread(receiver))
    }

    /// Returns the next record; `None` at the end, `Some(None)` if the pipe has paused or the window has been open too long.
    fn next(&mut self, opened: Option<Instant>) -> Option<Option<Item>> {
        match (self, opened) {
            (Self::Here(records), _) => records.next().map(Some),
            (Self::Thread(records), None) => records.recv().ok().map(Some),
            (Self::Thread(records), Some(opened)) => {
                let left = OPEN.saturating_sub(opened.elapsed());
                match records.recv_timeout(left.min(PAUSE)) {
                    Ok(record) => Some(Some(record)),
                    Err(RecvTimeoutError::Timeout) => Some(None),
                    Err(RecvTimeoutError::Disconnected) => None,
                }
            }
        }
    }
}

/// Windows of records, none of them empty. An error is returned after the window of everything before it, and is the last item.
pub struct Windows {
    source: Option<RecordSource>,
    count: usize,
    bytes: usize,
    failed: Option<anyhow::Error>,
}

impl Windows {
    /// Creates windows of at most `count` records; a window also ends once it has `bytes` of text.
    pub(crate) fn new(source: RecordSource, count: usize, bytes: usize) -> Self {
        Self {
            source: Some(source),
            count: count.max(1),
            bytes: bytes.max(1),
            failed: None,
        }
    }

    /// Creates one window of a single record.
    pub fn of_one(record: InputRecord) -> Self {
        Self::new(RecordSource::here(std::iter::once(Ok(record))), 1, 1)
    }
}

impl Iterator for Windows {
    type Item = anyhow::Result<Vec<InputRecord>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut window, mut bytes, mut opened) = (Vec::new(), 0, None);
        while let Some(source) = &mut self.source {
            if window.len() >= self.count || bytes >= self.bytes {
                break;
            }
            match source.next(opened) {
                Some(Some(Ok(record))) => {
                    bytes += record.bytes();
                    window.push(record);
                    opened.get_or_insert_with(Instant::now);
                }
                Some(Some(Err(error))) => {
                    // After an error the reader's position is uncertain: nothing more is read.
                    (self.source, self.failed) = (None, Some(error));
                }
                Some(None) => break,
                None => self.source = None,
            }
        }
        if window.is_empty() {
            return self.failed.take().map(Err);
        }
        Some(Ok(window))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail loudly

    use super::*;
    use std::sync::mpsc::channel;

    fn texts(window: Option<anyhow::Result<Vec<InputRecord>>>) -> Vec<String> {
        let window = window.unwrap().unwrap();
        window.iter().map(|r| r.input.text.to_string()).collect()
    }

    #[test]
    fn windows_are_full_and_an_error_comes_after_what_was_read() {
        let records = ["a", "b", "c"].map(|text| Ok(InputRecord::without_id(text)));
        let bad = std::iter::once(Err(anyhow::anyhow!("bad")));
        let more = std::iter::once(Ok(InputRecord::without_id("d")));
        let source = RecordSource::here(records.into_iter().chain(bad).chain(more));
        let mut windows = Windows::new(source, 2, 100);
        assert_eq!(texts(windows.next()), ["a", "b"]);
        assert_eq!(texts(windows.next()), ["c"]);
        let error = windows.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "bad");
        assert!(windows.next().is_none());
    }

    #[test]
    fn bytes_close_a_window() {
        let records = ["long text", "b", "c"].map(|text| Ok(InputRecord::without_id(text)));
        let mut windows = Windows::new(RecordSource::here(records.into_iter()), 10, 5);
        assert_eq!(texts(windows.next()), ["long text"]);
        assert_eq!(texts(windows.next()), ["b", "c"]);
        assert!(windows.next().is_none());
    }

    #[test]
    fn a_pipe_that_pauses_closes_a_window() {
        let (sender, receiver) = channel();
        let source = RecordSource::thread(receiver.into_iter()).unwrap();
        let mut windows = Windows::new(source, 1000, 1000);
        sender.send(Ok(InputRecord::without_id("a"))).unwrap();
        // The writer is alive and sends nothing: the result must not wait until it ends.
        assert_eq!(texts(windows.next()), ["a"]);
        sender.send(Ok(InputRecord::without_id("b"))).unwrap();
        sender.send(Err(anyhow::anyhow!("bad"))).unwrap();
        drop(sender);
        assert_eq!(texts(windows.next()), ["b"]);
        assert!(windows.next().unwrap().is_err());
        assert!(windows.next().is_none());
    }
}
