//! Short programs, one for each use of ModernBERT; they live in `src/bin`.
