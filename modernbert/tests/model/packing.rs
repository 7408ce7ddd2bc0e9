//! Packed sequences against the same sequences alone, padded, and next to others.

use burn::tensor::Tensor;
use modernbert::batch::{PackedBatch, SequenceLayout, Unpadded};
use modernbert::model::ModernBert;
use modernbert::ops::row_moves;

use crate::toy;
use test_support::{assert_close, autodiff_device, bits, device, ids, normals, read, tensor, wide};

const WIDTH: usize = 16;

fn sequences(lengths: &[usize]) -> Vec<Vec<u32>> {
    let sequence = |(i, &length): (usize, &usize)| ids(100 + i as u64, length, toy::VOCAB as u32);
    lengths.iter().enumerate().map(sequence).collect()
}

fn encoder(device: &burn::tensor::Device) -> ModernBert {
    toy::build(
        |device| ModernBert::new(&toy::config(4), device).unwrap(),
        3,
        device,
    )
}

/// A scalar that weighs every hidden value differently; `first` is the row of the batch at which `sequences` begin.
fn loss(encoder: &ModernBert, sequences: &[Vec<u32>], first: usize) -> Tensor<1> {
    let device = autodiff_device();
    let batch = PackedBatch::from_sequences(sequences, &device).unwrap();
    let total = batch.layout.total_tokens();
    let weights = normals(9, 1000 * WIDTH);
    let weights = tensor(
        &weights[first * WIDTH..][..total * WIDTH],
        [total, WIDTH],
        &device,
    );
    (encoder.forward(&batch) * weights).sum()
}

#[test]
fn packed_equals_alone_forward_and_all_gradients() {
    // 64, 65 and 129 cross the boundaries of attention's blocks.
    let sequences = sequences(&[1, 5, 64, 65, 129, 2]);
    let device = autodiff_device();
    let encoder = encoder(&device);
    let batch = PackedBatch::from_sequences(&sequences, &device).unwrap();
    let packed = read(encoder.forward(&batch));
    let packed_grads = toy::gradients(&encoder, &loss(&encoder, &sequences, 0));
    let mut sum = toy::Named::new();
    for (sequence, range) in sequences.iter().zip(batch.layout.ranges()) {
        let alone = PackedBatch::from_sequences(std::slice::from_ref(sequence), &device).unwrap();
        let expected = wide(&read(encoder.forward(&alone)));
        assert_close(
            &packed[range.start * WIDTH..range.end * WIDTH],
            &expected,
            1e-5,
            "hidden states",
        );
        let grads = toy::gradients(
            &encoder,
            &loss(&encoder, std::slice::from_ref(sequence), range.start),
        );
        for (name, grad) in grads {
            let sum = sum.entry(name).or_insert_with(|| vec![0.0; grad.len()]);
            sum.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g);
        }
    }
    toy::assert_gradients_close(&packed_grads, &sum, 1e-5);
}

#[test]
fn changing_a_sequence_leaves_the_others_bit_identical() {
    let before = sequences(&[7, 66, 0, 30]);
    let encoder = encoder(&device());
    let run = |sequences: &[Vec<u32>]| {
        let batch = PackedBatch::from_sequences(sequences, &device()).unwrap();
        let hidden = read(encoder.forward(&batch));
        let of =
            |range: std::ops::Range<usize>| bits(&hidden[range.start * WIDTH..range.end * WIDTH]);
        batch.layout.ranges().map(of).collect::<Vec<_>>()
    };
    let expected = run(&before);
    for k in [0, 1, 3] {
        let mut after = before.clone();
        after[k] = ids(777, before[k].len(), toy::VOCAB as u32);
        for (i, (found, expected)) in run(&after).iter().zip(&expected).enumerate() {
            assert_eq!(
                found == expected,
                i != k,
                "sequence {i} after a change of {k}"
            );
        }
    }
}

#[test]
fn the_same_text_anywhere_in_a_batch_has_the_same_states() {
    let text = ids(5, 20, toy::VOCAB as u32);
    let encoder = encoder(&device());
    let hidden = |before: usize, after: usize| {
        let sequences = [
            ids(6, before, toy::VOCAB as u32),
            text.clone(),
            ids(7, after, toy::VOCAB as u32),
        ];
        let batch = PackedBatch::from_sequences(&sequences, &device()).unwrap();
        read(encoder.forward(&batch))[before * WIDTH..(before + 20) * WIDTH].to_vec()
    };
    let expected = wide(&hidden(0, 0));
    for (before, after) in [(1, 0), (0, 64), (63, 5), (200, 1)] {
        assert_close(&hidden(before, after), &expected, 1e-5, "hidden states");
    }
}

#[test]
fn padding_left_or_right_or_everywhere_changes_nothing() {
    let (rows, width) = (4, 12);
    let encoder = encoder(&device());
    let text = sequences(&[12, 5, 0, 9]);
    let padded = |left: bool| {
        let (mut ids, mut mask) = (vec![], vec![]);
        for sequence in &text {
            let padding = width - sequence.len();
            let (before, after) = if left { (padding, 0) } else { (0, padding) };
            ids.extend(
                std::iter::repeat_n(1, before)
                    .chain(sequence.iter().copied())
                    .chain(std::iter::repeat_n(1, after)),
            );
            mask.extend((0..width).map(|column| (before..width - after).contains(&column)));
        }
        let unpadded = Unpadded::new(&ids, &mask, rows, width).unwrap();
        let batch = PackedBatch::new(&unpadded.ids, unpadded.layout.clone(), &device());
        (mask, read(unpadded.repad(encoder.forward(&batch))))
    };
    let packed = read(encoder.forward(&PackedBatch::from_sequences(&text, &device()).unwrap()));
    for left in [true, false] {
        let (mask, hidden) = padded(left);
        let rows_of = |real: bool| -> Vec<f32> {
            let rows = hidden.chunks(WIDTH).zip(&mask).filter(|(_, m)| **m == real);
            rows.flat_map(|(row, _)| row.to_vec()).collect()
        };
        assert_eq!(bits(&rows_of(true)), bits(&packed), "left: {left}");
        assert!(rows_of(false).iter().all(|&x| x == 0.0), "padding is zero");
    }
}

/// A batch with more padding than tokens: the embedding reads the real tokens alone, every layer computes their rows alone, and the one
/// scatter is the caller's.
#[test]
fn a_padded_batch_is_gathered_once_and_scattered_once() {
    let (rows, width) = (4, 20);
    let text = sequences(&[12, 5, 0, 9]);
    let (mut ids, mut mask) = (vec![1; rows * width], vec![false; rows * width]);
    for (row, sequence) in text.iter().enumerate() {
        for (column, &id) in sequence.iter().enumerate() {
            ids[row * width + column] = id;
            mask[row * width + column] = true;
        }
    }
    let real = 12 + 5 + 9;
    for device in [device(), autodiff_device()] {
        let encoder = encoder(&device);
        let (states, moves) = row_moves(|| {
            let unpadded = Unpadded::new(&ids, &mask, rows, width).unwrap();
            let batch = PackedBatch::new(&unpadded.ids, unpadded.layout.clone(), &device);
            let hidden = encoder.forward(&batch);
            let padded = unpadded.repad(hidden);
            assert_eq!(padded.dims(), [rows, width, WIDTH]);
            encoder.hidden_states(&batch)
        });
        // Of `forward`, `repad` and `hidden_states`, the two passes gather once each.
        assert_eq!(moves.gathered, [real, real]);
        assert_eq!(moves.scattered, [real]);
        assert_eq!(states.len(), encoder.num_layers() + 1);
        for state in states {
            assert_eq!(state.dims(), [real, WIDTH]);
        }
    }
}

/// The count above sees the crate's own ops: the files of the forward pass use no other that moves rows.
#[test]
fn the_forward_pass_moves_rows_by_no_other_op() {
    let files = [
        include_str!("../../src/model/attention.rs"),
        include_str!("../../src/model/dropout.rs"),
        include_str!("../../src/model/embeddings.rs"),
        include_str!("../../src/model/encoder.rs"),
        include_str!("../../src/model/layer.rs"),
        include_str!("../../src/model/linear.rs"),
        include_str!("../../src/model/mlp.rs"),
        include_str!("../../src/model/norm.rs"),
    ];
    let calls = |op: &str| {
        files
            .iter()
            .map(|text| text.matches(op).count())
            .sum::<usize>()
    };
    assert_eq!(calls("gather_rows("), 1);
    for op in [
        ".select(",
        ".gather(",
        ".scatter(",
        "select_assign(",
        ".slice(",
        "repad(",
    ] {
        assert_eq!(calls(op), 0, "{op}");
    }
}

#[test]
fn gradients_pass_through_repadding() {
    let device = autodiff_device();
    let encoder = encoder(&device);
    let (text, mask) = (
        ids(8, 12, toy::VOCAB as u32),
        [
            true, true, true, false, false, false, false, true, true, true, true, false,
        ],
    );
    let unpadded = Unpadded::new(&text, &mask, 2, 6).unwrap();
    let batch = PackedBatch::new(&unpadded.ids, unpadded.layout.clone(), &device);
    let weights = tensor(&normals(10, 12 * WIDTH), [2, 6, WIDTH], &device);
    let padded = toy::gradients(
        &encoder,
        &(unpadded.repad(encoder.forward(&batch)) * weights.clone()).sum(),
    );
    let rows: Vec<i32> = unpadded.indices.iter().map(|&i| i as i32).collect();
    let picked = weights
        .reshape([12, WIDTH])
        .select(0, modernbert::batch::int_tensor(rows.into_iter(), &device));
    let packed = toy::gradients(&encoder, &(encoder.forward(&batch) * picked).sum());
    toy::assert_gradients_close(&padded, &packed, 1e-5);
}

#[test]
fn a_batch_built_from_boundaries_is_the_batch_built_from_sequences() {
    let text = sequences(&[3, 4]);
    let layout = SequenceLayout::from_cu_seqlens(vec![0, 3, 7]).unwrap();
    let encoder = encoder(&device());
    let a = encoder.forward(&PackedBatch::new(&text.concat(), layout, &device()));
    let b = encoder.forward(&PackedBatch::from_sequences(&text, &device()).unwrap());
    assert_eq!(bits(&read(a)), bits(&read(b)));
}
