//! Limits on batches, texts and streams.

/// Limits on the tokens of a text, of a batch and of a stream's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Tokens of all sequences in a batch together, at most; a longer sequence is a batch of its own.
    pub batch_tokens: usize,
    /// Tokens of one sequence at most, special tokens included; longer sequences are truncated on the right. By default what the
    /// model's files ask for.
    pub max_length: Option<usize>,
    /// Inputs of a stream's window: read before they are sorted and computed.
    pub window: usize,
    /// Bytes of text after which a window is full, however few inputs it has.
    pub window_bytes: usize,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            batch_tokens: 8192,
            max_length: None,
            window: 4096,
            window_bytes: 16 << 20,
        }
    }
}
