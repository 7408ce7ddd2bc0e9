//! Dropout whose mask is a pure function of a key.
//!
//! ```text
//! bits(i)  = fmix32(fmix32(i ^ key[0]) ^ key[1])      in 32-bit words; fmix32 is MurmurHash3's finalizer
//! out[i]   = x[i] / (1 - p)   where bits(i) >= p 2^32, else 0
//! ```
//!
//! `i` is the index of the element in the contiguous tensor. No mask is stored and no stateful generator is used: the same key
//! drops the same elements on every backend and in every call. Dropout is linear, so its derivative is the same op on the gradient.
//! It is a counter-based generator in the sense of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3") with a
//! shorter mixing function: dropout needs uniform and independent bits, not cryptographic ones.
//!
//! Any float dtype, computed in f32 (f64 in f64).

mod attention;
pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;

pub use attention::attention_with_dropout;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::PackedBackend;
use crate::batch::Dropout;

/// A point of the model at which elements are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// After the embedding norm.
    Embedding = 1,
    /// Of the attention probabilities.
    AttentionProbabilities = 2,
    /// After the attention output projection.
    AttentionOutput = 3,
    /// In the MLP, after the gate.
    Mlp = 4,
    /// Before a classifier.
    Classifier = 5,
    /// After the MLP's output projection.
    MlpOutput = 6,
    /// Before the dense layer of a sequence classifier's head.
    Head = 7,
}

/// One application of dropout: its rate, and the key that selects the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutSpec {
    threshold: u32,
    key: [u32; 2],
}

impl DropoutSpec {
    /// Returns the dropout of a batch at a site of a layer; `None` if the rate is 0.
    pub fn of(dropout: &Dropout, layer: usize, site: Site) -> Option<Self> {
        let rates = &dropout.rates;
        let rate = match site {
            Site::Embedding => rates.embedding,
            Site::AttentionProbabilities => rates.attention_probabilities,
            Site::AttentionOutput => rates.attention_output,
            Site::Mlp => rates.mlp,
            Site::Classifier => rates.classifier,
            Site::MlpOutput => rates.mlp_output,
            Site::Head => rates.head,
        };
        let words = [dropout.seed, dropout.batch, layer as u64, site as u64];
        Self::new(rate, words)
    }

    /// Returns dropout with probability `rate`, rounded to a multiple of 2⁻³², and a key made of `words`. `None` if the rate rounds to 0.
    ///
    /// # Panics
    /// If `rate` is not in `[0, 1)`.
    pub fn new(rate: f64, words: [u64; 4]) -> Option<Self> {
        assert!(
            (0.0..1.0).contains(&rate),
            "dropout: the rate {rate} is not in [0, 1)"
        );
        let threshold = (rate * 2f64.powi(32)).round().min(f64::from(u32::MAX)) as u32;
        (threshold > 0).then(|| Self {
            threshold,
            key: key(words),
        })
    }

    /// Probability with which an element is dropped.
    pub fn rate(&self) -> f64 {
        f64::from(self.threshold) / 2f64.powi(32)
    }

    /// Factor of the kept elements.
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - self.rate())
    }

    /// Returns whether the element at `index` is kept.
    #[inline(always)]
    pub fn keeps(&self, index: u32) -> bool {
        bits(index, self.key) >= self.threshold
    }

    /// Returns the same rate with a key derived from this one, for a part of a tensor.
    pub(in crate::ops) fn derived(&self, words: [u64; 2]) -> Self {
        let [low, high] = self.key;
        let own = (u64::from(high) << 32) | u64::from(low);
        Self {
            threshold: self.threshold,
            key: key([own, words[0], words[1], 0]),
        }
    }
}

/// Pseudo-random bits of an element; the definition that all versions implement.
#[inline(always)]
fn bits(index: u32, key: [u32; 2]) -> u32 {
    fmix32(fmix32(index ^ key[0]) ^ key[1])
}

/// Odd factors and shifts of the finalizer of MurmurHash3 (Appleby 2011), a bijection in which every bit changes every other.
const FACTORS: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];
const SHIFTS: [u32; 3] = [16, 13, 16];

#[inline(always)]
fn fmix32(x: u32) -> u32 {
    let x = (x ^ (x >> SHIFTS[0])).wrapping_mul(FACTORS[0]);
    let x = (x ^ (x >> SHIFTS[1])).wrapping_mul(FACTORS[1]);
    x ^ (x >> SHIFTS[2])
}

/// Mixes words into a key, one after the other, so that each of them changes all its bits (the finalizer of SplitMix64).
fn key(words: [u64; 4]) -> [u32; 2] {
    let mix = |state: u64, word: u64| {
        let x = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let mixed = words.into_iter().fold(0, mix);
    [mixed as u32, (mixed >> 32) as u32]
}

/// Most elements of a tensor: indices are 32 bits wide.
const MAX_ELEMENTS: usize = u32::MAX as usize;

/// Sets the elements that `spec` drops to 0 and scales the others by [`DropoutSpec::scale`]; any shape.
///
/// # Panics
/// If the tensor has 2³² elements or more.
pub fn dropout<const D: usize>(input: Tensor<D>, spec: DropoutSpec) -> Tensor<D> {
    let elements = input.dims().iter().product::<usize>();
    assert!(
        elements <= MAX_ELEMENTS,
        "dropout: a tensor of {elements} elements exceeds 32-bit indices; use smaller micro-batches"
    );
    Tensor::from_dispatch(<Dispatch as PackedBackend>::dropout(
        input.into_dispatch(),
        spec,
    ))
}
