//! Streams of texts that need not fit into memory.

use std::collections::VecDeque;

use super::{BatchOptions, InferenceError, Input, StreamProgress};

/// Computes one window of inputs.
type Run<'m, T> = Box<
    dyn FnMut(&[Input<'static>], &mut dyn FnMut(StreamProgress)) -> Result<Vec<T>, InferenceError>
        + 'm,
>;

/// Results of a stream of inputs, in their order; holds one window of them in memory.
///
/// An error of the source is returned after the results of everything before it. After an error the stream ends.
pub struct ResultStream<'m, I, T, E> {
    inputs: Option<I>,
    options: BatchOptions,
    run: Run<'m, T>,
    progress: Box<dyn FnMut(StreamProgress) + 'm>,
    before: StreamProgress,
    ready: VecDeque<T>,
    failed: Option<E>,
}

impl<'m, I, T, E> ResultStream<'m, I, T, E>
where
    I: Iterator<Item = Result<Input<'static>, E>>,
    E: From<InferenceError>,
{
    pub(super) fn new(
        inputs: I,
        options: BatchOptions,
        run: Run<'m, T>,
        progress: Box<dyn FnMut(StreamProgress) + 'm>,
    ) -> Self {
        Self {
            inputs: Some(inputs),
            options,
            run,
            progress,
            before: StreamProgress::default(),
            ready: VecDeque::new(),
            failed: None,
        }
    }

    /// Reads a window; an error or the end of the source is reported after its results.
    fn window(&mut self) -> Vec<Input<'static>> {
        let (mut window, mut bytes) = (Vec::new(), 0usize);
        while let Some(inputs) = &mut self.inputs {
            if window.len() >= self.options.window.max(1)
                || bytes >= self.options.window_bytes.max(1)
            {
                break;
            }
            match inputs.next() {
                Some(Ok(input)) => {
                    bytes += input.bytes();
                    window.push(input);
                }
                Some(Err(error)) => {
                    self.failed = Some(error);
                    self.inputs = None;
                }
                None => self.inputs = None,
            }
        }
        window
    }
}

impl<I, T, E> Iterator for ResultStream<'_, I, T, E>
where
    I: Iterator<Item = Result<Input<'static>, E>>,
    E: From<InferenceError>,
{
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            let window = self.window();
            if !window.is_empty() {
                let before = self.before;
                let (progress, now) = (&mut self.progress, &mut self.before);
                let mut report = |window: StreamProgress| {
                    *now = before.then(window);
                    progress(*now);
                };
                match (self.run)(&window, &mut report) {
                    Ok(results) => self.ready = results.into(),
                    Err(error) => {
                        (self.inputs, self.failed) = (None, None);
                        return Some(Err(error.after(before.done).into()));
                    }
                }
            }
        }
        match self.ready.pop_front() {
            Some(result) => Some(Ok(result)),
            None => self.failed.take().map(Err),
        }
    }
}
