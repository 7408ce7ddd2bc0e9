//! Comparison of vectors: dot product, cosine, nearest neighbors.

/// Reason why vectors can't be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a vector has {left} numbers and vector {index} has {right}; compare vectors of the same model"
)]
pub struct WidthError {
    /// Width of the first vector.
    pub left: usize,
    /// Width of the other.
    pub right: usize,
    /// Number of the other, from 0.
    pub index: usize,
}

/// A neighbor of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Position in the list that was searched.
    pub index: usize,
    /// Cosine of the angle to the query.
    pub score: f32,
}

fn products(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

fn same_width(a: &[f32], b: &[f32], index: usize) -> Result<(), WidthError> {
    if a.len() == b.len() {
        return Ok(());
    }
    Err(WidthError {
        left: a.len(),
        right: b.len(),
        index,
    })
}

/// Dot product of two vectors, summed in f64.
///
/// ```
/// assert_eq!(modernbert::dot(&[1.0, 2.0], &[3.0, 4.0])?, 11.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Vectors of different widths.
pub fn dot(a: impl AsRef<[f32]>, b: impl AsRef<[f32]>) -> Result<f32, WidthError> {
    let (a, b) = (a.as_ref(), b.as_ref());
    same_width(a, b, 0)?;
    Ok(products(a, b) as f32)
}

/// Cosine of the angle between two vectors, from -1 to 1; 0 if one of them is all zeros.
///
/// ```
/// use modernbert::{Encoder, cosine_similarity};
///
/// # let folder = tiny_models::masked_lm();
/// # let name = folder.path();
/// let encoder = Encoder::load(name)?;
/// let vectors = encoder.encode(&["one two", "one two", "three"])?;
/// assert!(cosine_similarity(&vectors[0], &vectors[1])? > 0.999);
/// assert!(cosine_similarity(&vectors[0], &vectors[2])? < 0.999);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Vectors of different widths.
pub fn cosine_similarity(a: impl AsRef<[f32]>, b: impl AsRef<[f32]>) -> Result<f32, WidthError> {
    let (a, b) = (a.as_ref(), b.as_ref());
    same_width(a, b, 0)?;
    Ok(cosine(a, b, products(a, a).sqrt()))
}

fn cosine(a: &[f32], b: &[f32], length_of_a: f64) -> f32 {
    let lengths = length_of_a * products(b, b).sqrt();
    if lengths > 0.0 {
        (products(a, b) / lengths).clamp(-1.0, 1.0) as f32
    } else {
        0.0
    }
}

/// Scales a vector to length one; a vector of zeros is not changed.
///
/// ```
/// let mut vector = [3.0, 4.0];
/// modernbert::normalize(&mut vector);
/// assert_eq!(vector, [0.6, 0.8]);
/// ```
pub fn normalize(values: &mut [f32]) {
    let norm = products(values, values).sqrt();
    if norm > 0.0 {
        values
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// The `k` vectors that are most similar to `query` by cosine, best first; equal ones in their order.
///
/// ```
/// let vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
/// let found = modernbert::top_k(&[0.9, 0.1], &vectors, 2)?;
/// assert_eq!(found.iter().map(|neighbor| neighbor.index).collect::<Vec<_>>(), [0, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A vector of another width than the query.
pub fn top_k<V: AsRef<[f32]>>(
    query: impl AsRef<[f32]>,
    vectors: &[V],
    k: usize,
) -> Result<Vec<Neighbor>, WidthError> {
    let query = query.as_ref();
    let length = products(query, query).sqrt();
    let mut found = Vec::with_capacity(vectors.len());
    for (index, vector) in vectors.iter().enumerate() {
        let vector = vector.as_ref();
        same_width(query, vector, index)?;
        let score = cosine(query, vector, length);
        found.push(Neighbor { index, score });
    }
    let better =
        |a: &Neighbor, b: &Neighbor| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index));
    if k < found.len() && k > 0 {
        found.select_nth_unstable_by(k - 1, better);
    }
    found.truncate(k);
    found.sort_by(better);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_of_known_vectors() {
        let cosine = |a: [f32; 2], b: [f32; 2]| cosine_similarity(a, b).unwrap();
        assert_eq!(cosine([1.0, 0.0], [0.0, 5.0]), 0.0);
        assert_eq!(cosine([1.0, 0.0], [-3.0, 0.0]), -1.0);
        assert!((cosine([1.0, 1.0], [1.0, 0.0]) - 0.5f32.sqrt()).abs() < 1e-7);
        assert_eq!(cosine([0.0, 0.0], [1.0, 0.0]), 0.0);
        assert_eq!(cosine([1e30, 0.0], [1e30, 0.0]), 1.0);
    }

    #[test]
    fn other_widths_are_refused_by_number() {
        assert!(dot([1.0], [1.0, 2.0]).is_err());
        assert!(cosine_similarity([1.0], [1.0, 2.0]).is_err());
        let vectors = [vec![1.0], vec![1.0, 2.0]];
        let error = top_k([1.0], &vectors, 1).unwrap_err();
        assert_eq!((error.left, error.right, error.index), (1, 2, 1));
    }

    #[test]
    fn the_nearest_come_first_and_equal_ones_in_order() {
        let vectors = [[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]];
        let indices = |k| -> Vec<usize> {
            let found = top_k([1.0, 0.0], &vectors, k).unwrap();
            found.iter().map(|neighbor| neighbor.index).collect()
        };
        assert_eq!(indices(2), [1, 2]);
        assert_eq!(indices(9), [1, 2, 0, 3]);
        assert_eq!(indices(0), [0usize; 0]);
    }
}
