//! Work on many items with all cores.

use rayon::prelude::*;

/// Maps every item, in parallel, and keeps their order.
///
/// # Errors
/// That of the first item that has one, in the order of the items: rayon's own `collect` returns whichever it meets first, so that a
/// message would name another line in each run.
pub fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    map: impl Fn(&T) -> Result<R, E> + Sync + Send,
) -> Result<Vec<R>, E> {
    let mapped: Vec<Result<R, E>> = items.par_iter().map(map).collect();
    mapped.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_in_order_is_returned() {
        let items: Vec<u32> = (0..1000).collect();
        let even = |&x: &u32| if x % 2 == 0 { Ok(x / 2) } else { Err(x) };
        for _ in 0..100 {
            assert_eq!(try_map(&items, even), Err(1));
        }
        let doubled: Result<Vec<u32>, ()> = try_map(&items, |&x| Ok(2 * x));
        assert_eq!(doubled, Ok((0..1000).map(|x| 2 * x).collect()));
    }
}
