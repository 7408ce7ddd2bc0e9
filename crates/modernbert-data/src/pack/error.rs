//! Errors of packing.

/// An error of the packer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    /// A size is 0.
    #[error(
        "packing needs at least one row, one token in a row and one sequence at a time; {name} is 0, raise it"
    )]
    Zero {
        /// The option that is 0.
        name: &'static str,
    },
    /// The buffer could never be filled.
    #[error(
        "a packing buffer of {buffer} sequences cannot take {source_batch} at a time; make it larger (5 x {source_batch})"
    )]
    Buffer {
        /// The buffer asked for.
        buffer: usize,
        /// Sequences taken at a time.
        source_batch: usize,
    },
    /// A sequence fits into no row.
    #[error(
        "sequence {index} has {length} tokens and a row holds {row_length}; \
         cut documents to at most {row_length} tokens when they are tokenized, or use longer rows"
    )]
    TooLong {
        /// Number of the sequence in the source, from 0, empty ones not counted.
        index: usize,
        /// Its tokens.
        length: usize,
        /// Tokens in a row.
        row_length: usize,
    },
}
