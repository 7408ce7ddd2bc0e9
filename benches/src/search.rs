//! The largest batch that a device takes: a search whose attempts may fail.

/// Result of an attempt with a number of documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attempt {
    /// It ran; contains the peak memory of the device in MiB.
    Ran(f64),
    /// It ran out of memory.
    Failed,
}

/// The largest number that ran within the cap, and the smallest that did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Documents of the largest batch that ran, twice.
    pub ran: usize,
    /// Documents of the smallest batch that failed or used more than the cap; `None` if none was met up to the limit of the search.
    pub failed: Option<usize>,
}

/// Gap between the two at which the search ends, relative to the smaller.
const GAP: f64 = 0.005;

/// Searches the largest batch whose use stays within `cap` MiB, from `start` documents to at most `limit`. Memory grows about linearly with
/// the batch, so the next attempt is chosen by the line through the two largest that ran. `try_batch` is called once more with the result;
/// an attempt that fails the second time does not count.
///
/// `None` if not even `start` documents fit.
///
/// # Errors
/// Those of `try_batch`.
pub fn largest<E>(
    start: usize,
    limit: usize,
    cap: f64,
    mut try_batch: impl FnMut(usize) -> Result<Attempt, E>,
) -> Result<Option<Largest>, E> {
    // Batches that ran within the cap, by size, with their memory.
    let mut ran: Vec<(usize, f64)> = Vec::new();
    let mut failed: Option<usize> = None;
    let mut next = start;
    loop {
        match try_batch(next)? {
            Attempt::Ran(used) if used <= cap => ran.push((next, used)),
            Attempt::Ran(_) | Attempt::Failed => failed = Some(next),
        }
        let (best, used, upper) = loop {
            let Some(&(best, used)) = ran.last() else {
                return Ok(None);
            };
            let upper = failed.unwrap_or(limit + 1);
            let done = (best as f64 * GAP).floor().max(1.0) as usize;
            if upper - best > done {
                break (best, used, upper);
            }
            match try_batch(best)? {
                Attempt::Ran(used) if used <= cap => {
                    return Ok(Some(Largest { ran: best, failed }));
                }
                _ => {
                    failed = Some(best);
                    ran.pop();
                }
            }
        };
        let guess = match ran.len() {
            1 => best * 4,
            n => {
                let (before, less) = ran[n - 2];
                let slope = (used - less) / (best - before) as f64;
                match slope > 0.0 {
                    // Without a cap there is no point where the line ends.
                    true if cap.is_finite() => best + ((cap - used) / slope) as usize,
                    _ => best * 4,
                }
            }
        };
        // Once both bounds are known, the next attempt is between them; the line may be wrong by a page of the allocator.
        next = match failed {
            Some(_) if guess >= upper || guess <= best => best + (upper - best).div_ceil(2),
            _ => guess.clamp(best + 1, limit),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(most: usize, cap: f64, limit: usize) -> (Option<Largest>, usize) {
        let mut attempts = 0;
        let found = largest(2, limit, cap, |count| {
            attempts += 1;
            assert!(count <= limit);
            // 900 MiB of weights and 7 MiB a document, in pages of 32.
            let used = ((900.0 + 7.0 * count as f64) / 32.0).ceil() * 32.0;
            Ok::<_, ()>(match count > most {
                true => Attempt::Failed,
                false => Attempt::Ran(used),
            })
        });
        (found.unwrap(), attempts)
    }

    #[test]
    fn the_largest_batch_is_found_in_few_attempts() {
        for most in [2, 3, 10, 97, 98, 1604, 25_000] {
            let (found, attempts) = search(most, f64::INFINITY, 1 << 20);
            let found = found.unwrap();
            let failed = found.failed.unwrap();
            assert!(found.ran <= most && failed > most, "{most}: {found:?}");
            assert!(failed - found.ran <= 1.max(most / 200), "{most}: {found:?}");
            assert!(attempts < 32, "{most}: {attempts}");
        }
    }

    #[test]
    fn a_cap_counts_like_a_failure() {
        let (found, attempts) = search(usize::MAX, 24_564.0, 1 << 20);
        let found = found.unwrap();
        // (24,564 rounded down to a page − 900) / 7
        assert!((3360..=3378).contains(&found.ran), "{found:?}");
        assert!(attempts < 12, "{attempts}");
    }

    #[test]
    fn ends_are_reported() {
        assert_eq!(search(1, f64::INFINITY, 100).0, None);
        let all = search(usize::MAX, f64::INFINITY, 100).0.unwrap();
        assert_eq!((all.ran, all.failed), (100, None));
    }

    #[test]
    fn a_result_that_fails_when_repeated_does_not_count() {
        let mut seen = Vec::new();
        let found = largest(4, 1000, f64::INFINITY, |count| {
            seen.push(count);
            let again = seen.iter().filter(|&&one| one == count).count() > 1;
            Ok::<_, ()>(match count > 100 || (count > 90 && again) {
                true => Attempt::Failed,
                false => Attempt::Ran(count as f64),
            })
        });
        let found = found.unwrap().unwrap();
        assert!(found.ran <= 90, "{found:?}");
    }
}
