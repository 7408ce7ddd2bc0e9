//! Small tensors repeated into large ones.

/// Position of the small tensor in the large one, and the values of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tiling {
    /// In the middle, continued periodically in all directions: `new[j] = old[(j - offset) mod old]` with
    /// `offset = (new - old) / 2`, rounded down. The method of the published large model.
    #[default]
    Middle,
    /// At the beginning, continued periodically: `new[j] = old[j mod old]`.
    Edge,
    /// In the middle; the rest keeps its random initialization.
    Center,
}

impl Tiling {
    /// The index of the small axis that is copied to `j` of the large one, `None` for values that stay.
    fn source(self, j: usize, old: usize, new: usize) -> Option<usize> {
        let offset = (new - old) / 2;
        match self {
            Self::Edge => Some(j % old),
            Self::Middle => Some((j + old - offset % old) % old),
            Self::Center => j.checked_sub(offset).filter(|&i| i < old),
        }
    }
}

/// Tiles a vector into `new`, which is at least as long.
///
/// # Panics
/// If `new` is shorter than `old`.
pub fn tile_vector(old: &[f32], new: &mut [f32], tiling: Tiling) {
    let width = new.len();
    tile_matrix(old, [1, old.len()], new, [1, width], tiling);
}

/// Tiles a row-major matrix into `new`, which is at least as large on both axes.
///
/// # Panics
/// If an axis of `new` is smaller than that of `old`, or the sizes don't fit the shapes.
pub fn tile_matrix(
    old: &[f32],
    old_shape: [usize; 2],
    new: &mut [f32],
    new_shape: [usize; 2],
    tiling: Tiling,
) {
    let ([old_rows, old_columns], [rows, columns]) = (old_shape, new_shape);
    assert_eq!(
        old.len(),
        old_rows * old_columns,
        "the small matrix fills its shape"
    );
    assert_eq!(
        new.len(),
        rows * columns,
        "the large matrix fills its shape"
    );
    assert!(
        rows >= old_rows && columns >= old_columns,
        "tiling never shrinks"
    );
    if old.is_empty() {
        return;
    }
    let from: Vec<Option<usize>> = (0..columns)
        .map(|c| tiling.source(c, old_columns, columns))
        .collect();
    for (r, row) in new.chunks_mut(columns).enumerate() {
        let Some(source) = tiling.source(r, old_rows, rows) else {
            continue;
        };
        let source = &old[source * old_columns..][..old_columns];
        for (value, from) in row.iter_mut().zip(&from) {
            if let Some(from) = from {
                *value = source[*from];
            }
        }
    }
}

/// Tiles a matrix whose rows are several matrices, one below the other, each on its own: `parts` holds the rows of each in
/// the small and in the large matrix. Queries, keys and values; the two halves of a gated MLP; or all five of a parallel
/// layer, see [`parallel_parts`].
///
/// # Panics
/// If the parts don't add up to the rows, or a part shrinks.
pub fn tile_parts(
    old: &[f32],
    old_columns: usize,
    new: &mut [f32],
    new_columns: usize,
    parts: &[(usize, usize)],
    tiling: Tiling,
) {
    let (mut from, mut to) = (0, 0);
    for &(old_rows, rows) in parts {
        tile_matrix(
            &old[from * old_columns..][..old_rows * old_columns],
            [old_rows, old_columns],
            &mut new[to * new_columns..][..rows * new_columns],
            [rows, new_columns],
            tiling,
        );
        (from, to) = (from + old_rows, to + rows);
    }
    assert_eq!(
        (from * old_columns, to * new_columns),
        (old.len(), new.len()),
        "the parts add up to the rows"
    );
}

/// The parts of a parallel layer's `Wqkvff`: queries, keys, values, then the activated and the linear half of the MLP.
pub fn parallel_parts(hidden: (usize, usize), intermediate: (usize, usize)) -> [(usize, usize); 5] {
    [hidden, hidden, hidden, intermediate, intermediate]
}

/// Number of the layer, of `old`, that layer `i` of `new` is copied from: `i · old / new`, rounded half to even as Python rounds.
pub fn source_layer(i: usize, old: usize, new: usize) -> usize {
    let (quotient, rest) = (i * old / new, i * old % new);
    let up = match (2 * rest).cmp(&new) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => quotient % 2,
        std::cmp::Ordering::Greater => 1,
    };
    // Only a model more than twice as deep can round beyond the last layer.
    (quotient + up).min(old.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(tiling: Tiling) -> Vec<f32> {
        let mut new = vec![0.0; 8];
        tile_vector(&[1.0, 2.0, 3.0], &mut new, tiling);
        new
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(vector(Tiling::Middle), [2., 3., 1., 2., 3., 1., 2., 3.]);
        assert_eq!(vector(Tiling::Edge), [1., 2., 3., 1., 2., 3., 1., 2.]);
        assert_eq!(vector(Tiling::Center), [0., 0., 1., 2., 3., 0., 0., 0.]);
    }

    #[test]
    fn golden_matrices() {
        let old: Vec<f32> = (1..=9).map(|x| x as f32).collect();
        let mut new = vec![0.0; 25];
        tile_matrix(&old, [3, 3], &mut new, [5, 5], Tiling::Middle);
        let expected = [
            9., 7., 8., 9., 7., 3., 1., 2., 3., 1., 6., 4., 5., 6., 4., 9., 7., 8., 9., 7., 3., 1.,
            2., 3., 1.,
        ];
        assert_eq!(new, expected);
        let old: Vec<f32> = (1..=8).map(|x| x as f32).collect();
        let mut new = vec![0.0; 35];
        tile_matrix(&old, [4, 2], &mut new, [7, 5], Tiling::Middle);
        let expected = [
            8., 7., 8., 7., 8., 2., 1., 2., 1., 2., 4., 3., 4., 3., 4., 6., 5., 6., 5., 6., 8., 7.,
            8., 7., 8., 2., 1., 2., 1., 2., 4., 3., 4., 3., 4.,
        ];
        assert_eq!(new, expected);
        let mut new = vec![-1.0; 16];
        tile_matrix(&[1., 2., 3., 4.], [2, 2], &mut new, [4, 4], Tiling::Center);
        assert_eq!(new[4..8], [-1., 1., 2., -1.]);
        tile_matrix(&[1., 2., 3., 4.], [2, 2], &mut new, [4, 4], Tiling::Edge);
        assert_eq!(
            new,
            [
                1., 2., 1., 2., 3., 4., 3., 4., 1., 2., 1., 2., 3., 4., 3., 4.
            ]
        );
    }

    #[test]
    fn golden_layer_map() {
        let expected = [
            0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13, 14, 15, 16, 16, 17, 18, 19,
            20, 20, 21,
        ];
        let found: Vec<usize> = (0..28).map(|i| source_layer(i, 22, 28)).collect();
        assert_eq!(found, expected);
        assert!((0..30).all(|i| source_layer(i, 3, 30) < 3));
        assert!((0..22).all(|i| source_layer(i, 22, 22) == i));
    }

    #[test]
    fn the_blocks_of_a_parallel_layer_stay_apart() {
        // Hidden 1 to 2, inner 2 to 3; one column, so that each block shows as a run of its own values.
        let old = [10., 20., 30., 41., 42., 51., 52.];
        let mut new = vec![0.0; 12];
        tile_parts(
            &old,
            1,
            &mut new,
            1,
            &parallel_parts((1, 2), (2, 3)),
            Tiling::Middle,
        );
        assert_eq!(
            new,
            [10., 10., 20., 20., 30., 30., 41., 42., 41., 51., 52., 51.]
        );
    }
}
