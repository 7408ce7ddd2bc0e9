//! Hardware-aware shapes (paper, section 2.1.3 and appendix B): how well the matrices of a shape fill GPUs, the constraints of the published
//! shapes, and a search for shapes that keep them.
//!
//! A GEMM with a weight `[m, n]` is computed in blocks of 128 × 256 or 256 × 128, each on one streaming multiprocessor (SM). With `s` SMs
//! and `b = ⌈m / 128⌉ ⌈n / 256⌉` blocks the last wave occupies `b mod s` of them: the utilization is `(b mod s) / s`, or 1 where `s` divides
//! `b`. Both orientations of the blocks are averaged. The score of a shape on a GPU is the mean over the four matrices of a layer; over
//! several GPUs it is their weighted mean. Source: `model_shapes.py` on the branch `shapes` of ModernBERT's training code.

use std::ops::RangeInclusive;

use super::ModernBertConfig;
use crate::wording::counted;

/// Sides of a block of a GEMM.
const BLOCK: [u64; 2] = [128, 256];
/// Every width is a multiple of this, the size of a head.
const WIDTH_MULTIPLE: usize = 64;
/// Every `GLOBAL`-th layer is global, the first and the last among them.
const GLOBAL: usize = 3;
/// Largest width of a shape, larger than that of any encoder: a search over all of them takes seconds.
const MOST_WIDTH: usize = 16_384;
/// A number of layers that breaks no constraint.
const SMALLEST_DEPTH: usize = 4;
/// Largest number of layers of a shape.
const MOST_LAYERS: usize = 256;

/// A GPU by the number of its streaming multiprocessors.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Streaming multiprocessors.
    pub sms: u64,
    /// Weight in a score over several GPUs.
    pub weight: f64,
}

/// The GPUs of the authors' script: name, streaming multiprocessors, weight.
const GPUS: [(&str, u64, f64); 12] = [
    ("T4", 40, 1.25),
    ("L4", 60, 1.25),
    ("RTX 3080", 68, 1.0),
    ("A10", 72, 1.25),
    ("RTX 4080", 76, 1.0),
    ("V100", 80, 1.1),
    ("RTX 3090", 82, 1.0),
    ("RTX A6000", 84, 1.0),
    ("A100", 108, 1.1),
    ("RTX 4090", 128, 1.0),
    ("RTX 6000 Ada", 142, 1.0),
    ("H100", 144, 1.1),
];

impl Gpu {
    /// The GPUs of the authors' script, with inference GPUs weighted higher.
    pub fn known() -> Vec<Self> {
        let gpu = |&(name, sms, weight): &(&str, u64, f64)| Self {
            name: name.to_owned(),
            sms,
            weight,
        };
        GPUS.iter().map(gpu).collect()
    }

    /// A known GPU by its name, in any case and without spaces; or a number of streaming multiprocessors, with weight 1.
    ///
    /// # Errors
    /// A name that is neither.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        let plain = |name: &str| name.replace([' ', '-', '_'], "").to_lowercase();
        let known = Self::known();
        if let Some(found) = known.iter().find(|gpu| plain(&gpu.name) == plain(text)) {
            return Ok(found.clone());
        }
        match text.parse() {
            Ok(sms) if (1..=100_000).contains(&sms) => Ok(Self {
                name: format!("{sms} SMs"),
                sms,
                weight: 1.0,
            }),
            _ => Err(ShapeError::Gpu {
                name: text.to_owned(),
                known: known.into_iter().map(|gpu| gpu.name).collect(),
            }),
        }
    }
}

/// Reason why a shape, a GPU or a search can't be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// A text that is not three sizes.
    #[error(
        "shape {0:?}: write hidden size, intermediate size and number of layers, such as 768x1152x22, or name a preset"
    )]
    Shape(String),
    /// A size that no encoder has.
    #[error("shape {0}: widths are 1 to {MOST_WIDTH}, layers 1 to {MOST_LAYERS}")]
    Size(Shape),
    /// An unknown GPU.
    #[error("GPU {name:?}: name one of {}, or give a number of streaming multiprocessors", known.join(", "))]
    Gpu {
        /// The text.
        name: String,
        /// The known names.
        known: Vec<String>,
    },
    /// A search without a GPU to score on.
    #[error("no GPU is named; name one, or leave the list out for the authors' twelve")]
    NoGpus,
    /// A range that contains nothing.
    #[error("{what} from {from} to {to}: the range is empty; begin with the smaller number")]
    Empty {
        /// The quantity.
        what: &'static str,
        /// Its start.
        from: u64,
        /// Its end.
        to: u64,
    },
}

/// The sizes that decide the matrices of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP after the gate.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.hidden, self.intermediate, self.layers)
    }
}

impl From<&ModernBertConfig> for Shape {
    fn from(config: &ModernBertConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
        }
    }
}

impl Shape {
    /// Reads `HIDDENxINTERMEDIATExLAYERS`, such as `768x1152x22`, or the name of a preset.
    ///
    /// # Errors
    /// A text that is neither; sizes that no encoder has.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        if let Ok(preset) = ModernBertConfig::preset(text) {
            return Ok(Self::from(&preset));
        }
        let sizes: Vec<usize> = text
            .split(['x', ','])
            .map_while(|size| size.trim().parse().ok())
            .collect();
        match sizes[..] {
            [hidden, intermediate, layers] if text.split(['x', ',']).count() == 3 => Self {
                hidden,
                intermediate,
                layers,
            }
            .checked(),
            _ => Err(ShapeError::Shape(text.to_owned())),
        }
    }

    fn checked(self) -> Result<Self, ShapeError> {
        let widths = 1..=MOST_WIDTH;
        let good = widths.contains(&self.hidden)
            && widths.contains(&self.intermediate)
            && (1..=MOST_LAYERS).contains(&self.layers);
        if good {
            Ok(self)
        } else {
            Err(ShapeError::Size(self))
        }
    }

    /// Rows and columns of the four matrices of a layer: `Wqkv`, the attention's `Wo`, `Wi`, the MLP's `Wo`.
    pub fn matrices(&self) -> [(u64, u64); 4] {
        let (hidden, intermediate) = (self.hidden as u64, self.intermediate as u64);
        [
            (3 * hidden, hidden),
            (hidden, hidden),
            (2 * intermediate, hidden),
            (hidden, intermediate),
        ]
    }

    /// Parameters of the encoder with the published vocabulary.
    pub fn parameters(&self) -> u64 {
        let heads = (self.hidden / WIDTH_MULTIPLE).max(1);
        ModernBertConfig::of_shape(self.layers, self.hidden, self.intermediate, heads)
            .encoder_parameters()
    }

    /// The constraints of the published shapes that this one breaks, in words; none of base and large.
    pub fn broken_constraints(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, width) in [
            ("hidden size", self.hidden),
            ("intermediate size", self.intermediate),
        ] {
            if !width.is_multiple_of(WIDTH_MULTIPLE) {
                broken.push(format!(
                    "{name} {width} is not a multiple of {WIDTH_MULTIPLE}"
                ));
            }
        }
        let elements = BLOCK[0] * BLOCK[1];
        for (name, (rows, columns)) in ["Wqkv", "attn.Wo", "Wi", "mlp.Wo"]
            .into_iter()
            .zip(self.matrices())
        {
            if !(rows * columns).is_multiple_of(elements) {
                broken.push(format!(
                    "{name} [{rows}, {columns}] has no multiple of {elements} elements"
                ));
            }
        }
        broken.extend(depth_constraints(self.layers));
        broken
    }

    /// Mean utilization of the last wave over the four matrices and both orientations of a block, 0 to 1, on a GPU with `sms`
    /// streaming multiprocessors (1 or more).
    pub fn utilization(&self, sms: u64) -> f64 {
        let last_wave = |blocks: u64| match blocks % sms {
            0 => 1.0,
            rest => rest as f64 / sms as f64,
        };
        let of_matrix = |(rows, columns): (u64, u64)| {
            let [short, long] = BLOCK;
            let upright = rows.div_ceil(short) * columns.div_ceil(long);
            let lying = rows.div_ceil(long) * columns.div_ceil(short);
            0.5 * (last_wave(upright) + last_wave(lying))
        };
        self.matrices().map(of_matrix).iter().sum::<f64>() / 4.0
    }

    /// Weighted mean of [`Self::utilization`] over GPUs, 0 to 1; 0 without any.
    pub fn score(&self, gpus: &[Gpu]) -> f64 {
        let weights: f64 = gpus.iter().map(|gpu| gpu.weight).sum();
        if weights == 0.0 {
            return 0.0;
        }
        let sum: f64 = gpus
            .iter()
            .map(|gpu| gpu.weight * self.utilization(gpu.sms))
            .sum();
        sum / weights
    }
}

/// The constraints that a number of layers breaks.
fn depth_constraints(layers: usize) -> Vec<String> {
    let mut broken = Vec::new();
    let counted = counted(layers, "layer", "layers");
    if !layers.is_multiple_of(2) {
        let are = if layers == 1 { "is" } else { "are" };
        broken.push(format!("{counted} {are} an odd number"));
    }
    if !(layers - 1).is_multiple_of(GLOBAL) {
        broken.push(format!(
            "with {counted} the last is not global: layers - 1 is no multiple of {GLOBAL}"
        ));
    }
    broken
}

/// A grid of shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeSearch {
    /// Parameters of the encoder.
    pub parameters: RangeInclusive<u64>,
    /// Hidden sizes; multiples of 64 are tried.
    pub hidden: RangeInclusive<usize>,
    /// Numbers of layers; even ones whose last layer is global are tried.
    pub layers: RangeInclusive<usize>,
}

impl ShapeSearch {
    /// The shapes of the grid that break no constraint, with their score on `gpus`, the best first. Intermediate sizes are the multiples of
    /// 64 from the hidden size to four times that. Of equal scores the shape with fewer parameters comes first.
    ///
    /// # Errors
    /// An empty range, sizes that no encoder has, no GPU.
    pub fn run(&self, gpus: &[Gpu]) -> Result<Vec<(Shape, f64)>, ShapeError> {
        if gpus.is_empty() {
            return Err(ShapeError::NoGpus);
        }
        let as_u64 = |range: &RangeInclusive<usize>| (*range.start() as u64, *range.end() as u64);
        for (what, (from, to)) in [
            (
                "parameters",
                (*self.parameters.start(), *self.parameters.end()),
            ),
            ("hidden sizes", as_u64(&self.hidden)),
            ("layers", as_u64(&self.layers)),
        ] {
            if from > to {
                return Err(ShapeError::Empty { what, from, to });
            }
        }
        Shape {
            hidden: *self.hidden.end(),
            intermediate: WIDTH_MULTIPLE,
            layers: *self.layers.end(),
        }
        .checked()?;
        let multiples = |range: RangeInclusive<usize>| {
            let first = range.start().max(&1).next_multiple_of(WIDTH_MULTIPLE);
            (first..=*range.end()).step_by(WIDTH_MULTIPLE)
        };
        let mut found = Vec::new();
        for hidden in multiples(self.hidden.clone()) {
            for intermediate in multiples(hidden..=4 * hidden) {
                let of = |layers| Shape {
                    hidden,
                    intermediate,
                    layers,
                };
                // Score and constraints of the matrices are the same for every number of layers, and each layer after the first has the
                // same parameters: only these are counted, since a search has up to a million shapes.
                if !of(SMALLEST_DEPTH).broken_constraints().is_empty() {
                    continue;
                }
                let score = of(SMALLEST_DEPTH).score(gpus);
                let first = of(1).parameters();
                let each = of(2).parameters() - first;
                for layers in (*self.layers.start()).max(1)..=*self.layers.end() {
                    let parameters = first + each * (layers as u64 - 1);
                    if self.parameters.contains(&parameters) && depth_constraints(layers).is_empty()
                    {
                        found.push((of(layers), score, parameters));
                    }
                }
            }
        }
        found.sort_by(|(a, x, m), (b, y, n)| y.total_cmp(x).then_with(|| (m, a).cmp(&(n, b))));
        Ok(found
            .into_iter()
            .map(|(shape, score, _)| (shape, score))
            .collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shape(hidden: usize, intermediate: usize, layers: usize) -> Shape {
        Shape {
            hidden,
            intermediate,
            layers,
        }
    }

    /// Computed by a few lines of Python from the definition.
    #[test]
    fn utilizations_equal_those_computed_independently() {
        let golden = [
            (
                (768, 1152),
                [
                    0.465625,
                    0.64375,
                    0.568014706,
                    0.536458333,
                    0.508223684,
                    0.4828125,
                    0.471036585,
                    0.459821429,
                    0.357638889,
                    0.301757812,
                    0.272007042,
                    0.268229167,
                ],
                0.448866018,
            ),
            (
                (1024, 2624),
                [
                    0.375,
                    0.583333333,
                    0.397058824,
                    0.319444444,
                    0.25,
                    0.1875,
                    0.283536585,
                    0.505952381,
                    0.62962963,
                    0.4921875,
                    0.419014085,
                    0.409722222,
                ],
                0.405709474,
            ),
            (
                (640, 1000),
                [
                    0.521875,
                    0.514583333,
                    0.454044118,
                    0.428819444,
                    0.40625,
                    0.3859375,
                    0.37652439,
                    0.367559524,
                    0.28587963,
                    0.241210938,
                    0.217429577,
                    0.214409722,
                ],
                0.373139104,
            ),
        ];
        for ((hidden, intermediate), utilizations, score) in golden {
            let shape = shape(hidden, intermediate, 22);
            for (gpu, expected) in Gpu::known().iter().zip(utilizations) {
                let found = shape.utilization(gpu.sms);
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{shape} on {}: {found}",
                    gpu.name
                );
            }
            assert!((shape.score(&Gpu::known()) - score).abs() < 1e-9, "{shape}");
        }
        // By hand: on one SM every wave is full.
        assert_eq!(shape(768, 1152, 22).utilization(1), 1.0);
        assert_eq!(shape(768, 1152, 22).score(&[]), 0.0);
        // The seven GPUs of the paper.
        let basket: Vec<Gpu> = ["T4", "a10", "L4", "rtx3090", "RTX 4090", "A100", "h100"]
            .map(|name| Gpu::parse(name).unwrap())
            .into();
        assert!((shape(768, 1152, 22).score(&basket) - 0.442583764).abs() < 1e-9);
        assert!((shape(1024, 2624, 28).score(&basket) - 0.442293502).abs() < 1e-9);
    }

    #[test]
    fn the_published_shapes_break_no_constraint() {
        for (preset, parameters) in [("base", 149_014_272), ("large", 394_781_696)] {
            let shape = Shape::parse(preset).unwrap();
            assert_eq!(shape.broken_constraints(), Vec::<String>::new(), "{preset}");
            assert_eq!(shape.parameters(), parameters);
        }
        let broken = |shape: Shape| shape.broken_constraints().join("; ");
        let twelve = broken(shape(768, 1152, 12));
        assert_eq!(
            twelve,
            "with 12 layers the last is not global: layers - 1 is no multiple of 3"
        );
        let odd = broken(shape(640, 1000, 21));
        for part in [
            "intermediate size 1000 is not a multiple of 64",
            "Wi [2000, 640] has no multiple of 32768 elements",
            "mlp.Wo [640, 1000]",
            "21 layers are an odd number",
            "the last is not global",
        ] {
            assert!(odd.contains(part), "{odd}");
        }
        assert!(broken(shape(832, 1088, 22)).starts_with("Wqkv [2496, 832]"));
        assert_eq!(shape(768, 1152, 25).broken_constraints().len(), 1);
    }

    /// Numbers and order of an independent search, in Python.
    #[test]
    fn the_search_ranks_the_grid() {
        let gpus = Gpu::known();
        let base = ShapeSearch {
            parameters: 130_000_000..=150_000_000,
            hidden: 576..=1024,
            layers: 4..=64,
        };
        let found = base.run(&gpus).unwrap();
        assert_eq!(found.len(), 19);
        let first = [
            (shape(1024, 1728, 10), 0.523832534),
            (shape(1024, 1792, 10), 0.51972667),
            (shape(768, 3072, 10), 0.515077331),
            (shape(768, 2944, 10), 0.510119918),
        ];
        for ((found, score), (expected, golden)) in found.iter().zip(first) {
            assert_eq!(*found, expected);
            assert!((score - golden).abs() < 1e-9, "{found}: {score}");
        }
        assert_eq!(found[12].0, shape(768, 1152, 22));
        assert!(
            found
                .iter()
                .all(|(shape, _)| shape.broken_constraints().is_empty())
        );
        // At the width of BERT-base, the published shape is the deepest of the first five.
        let width = ShapeSearch {
            hidden: 768..=768,
            ..base.clone()
        };
        let found = width.run(&gpus).unwrap();
        assert_eq!(found.len(), 9);
        assert_eq!(found[4].0, shape(768, 1152, 22));
        let large = ShapeSearch {
            parameters: 350_000_000..=420_000_000,
            hidden: 1024..=1024,
            layers: 4..=64,
        };
        let found = large.run(&gpus).unwrap();
        assert_eq!(found.len(), 52);
        assert_eq!(found[0].0, shape(1024, 3840, 22));
        assert_eq!(found[49].0, shape(1024, 2624, 28));
        assert!(matches!(base.run(&[]), Err(ShapeError::NoGpus)));
        let empty = ShapeSearch {
            layers: RangeInclusive::new(9, 8),
            ..base.clone()
        };
        let message = empty.run(&gpus).unwrap_err().to_string();
        assert!(message.contains("layers from 9 to 8"), "{message}");
        let huge = ShapeSearch {
            hidden: 64..=usize::MAX,
            ..base
        };
        assert!(matches!(huge.run(&gpus), Err(ShapeError::Size(_))));
    }

    /// Counting every tensor of every shape took minutes.
    #[test]
    fn the_search_of_the_whole_grid_takes_seconds() {
        let started = std::time::Instant::now();
        let all = ShapeSearch {
            parameters: 1..=u64::MAX,
            hidden: 256..=2048,
            layers: 4..=64,
        };
        let found = all.run(&Gpu::known()).unwrap();
        assert!(found.len() > 1000);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
        for (shape, score) in found.iter().step_by(997) {
            assert!(shape.broken_constraints().is_empty(), "{shape}");
            assert_eq!(shape.score(&Gpu::known()), *score);
        }
    }

    #[test]
    fn texts_that_are_no_shape_and_no_gpu_are_refused() {
        assert_eq!(Shape::parse("768x1152x22").unwrap(), shape(768, 1152, 22));
        assert_eq!(Shape::parse("768, 1152, 22").unwrap(), shape(768, 1152, 22));
        for text in [
            "",
            "768",
            "768x1152",
            "768x1152x22x1",
            "768xax22",
            "-1x2x3",
            "x",
        ] {
            let message = Shape::parse(text).unwrap_err().to_string();
            assert!(message.contains("768x1152x22"), "{message}");
        }
        for text in ["0x1x1", "1x0x1", "1x1x0", "99999999x1x1", "1x1x9999"] {
            assert!(
                matches!(Shape::parse(text), Err(ShapeError::Size(_))),
                "{text}"
            );
        }
        assert_eq!(Gpu::parse("132").unwrap().sms, 132);
        for text in ["", "0", "B300X", "-3", "1e3"] {
            let message = Gpu::parse(text).unwrap_err().to_string();
            assert!(message.contains("H100"), "{message}");
        }
    }
}
