//! Counts of the rows that a forward pass gathers and scatters: tests of unpadding and of masked prediction compare them with the number of
//! real and of labelled tokens.

use std::cell::RefCell;

/// Rows of the gathers and scatters of one thread, each in the order of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMoves {
    /// Rows of each [`gather_rows`](super::gather_rows::gather_rows).
    pub gathered: Vec<usize>,
    /// Rows of each [`Unpadded::repad`](crate::batch::Unpadded::repad).
    pub scattered: Vec<usize>,
}

thread_local! {
    /// `None` where nothing is counted, which is everywhere but inside [`row_moves`].
    static MOVES: RefCell<Option<RowMoves>> = const { RefCell::new(None) };
}

/// Calls `run` and returns its result with the rows that this thread moved during the call, its backward pass not counted.
pub fn row_moves<T>(run: impl FnOnce() -> T) -> (T, RowMoves) {
    let outer = MOVES.replace(Some(RowMoves::default()));
    let result = run();
    let moves = MOVES.replace(outer).unwrap_or_default();
    (result, moves)
}

/// Counts a gather of `rows` rows.
pub(super) fn gathered(rows: usize) {
    MOVES.with_borrow_mut(|moves| {
        if let Some(moves) = moves {
            moves.gathered.push(rows);
        }
    });
}

/// Counts a scatter of `rows` rows.
pub(crate) fn scattered(rows: usize) {
    MOVES.with_borrow_mut(|moves| {
        if let Some(moves) = moves {
            moves.scattered.push(rows);
        }
    });
}
