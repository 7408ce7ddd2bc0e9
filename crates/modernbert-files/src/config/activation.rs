//! The nonlinearities of MLPs and heads, by name.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The nonlinearity of the MLPs or of a head: every function that transformers has by name, and those of PyTorch that FlexBERT lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// GELU in its exact form, `z/2 · (1 + erf(z/√2))`: `gelu`.
    #[default]
    Gelu,
    /// GELU through a hyperbolic tangent: `gelu_pytorch_tanh`; `gelu_tanh`, `gelu_new`, `gelu_fast` and `gelu_accurate` are the same function.
    GeluTanh,
    /// The exact GELU cut off at ±10: `gelu_10`.
    Gelu10,
    /// `z · sigmoid(1.702 z)`: `quick_gelu`.
    QuickGelu,
    /// `max(z, 0)`: `relu`; `threshold`, PyTorch's `Threshold(0, 0)`, is the same function.
    Relu,
    /// `max(z, 0)²`: `relu2`.
    ReluSquared,
    /// `min(max(z, 0), 6)`: `relu6`.
    Relu6,
    /// `z` above 0, `z / 100` below: `leaky_relu`.
    LeakyRelu,
    /// `z` above 0, `a z` below, with one trained number `a` for each use of the function, 0.25 at first: `prelu`.
    Prelu,
    /// `z` above 0, `11 z / 48` below: `rrelu`, with the mean of the slopes between 1/8 and 1/3 that PyTorch draws in training.
    Rrelu,
    /// `z` above 0, `e^z - 1` below: `elu`; `celu` is the same function.
    Elu,
    /// `1.0507 z` above 0, `1.7581 (e^z - 1)` below: `selu`.
    Selu,
    /// `z · sigmoid(z)`: `silu`, also read as `swish`.
    Silu,
    /// `z · min(max(z + 3, 0), 6) / 6`: `hardswish`.
    Hardswish,
    /// `z · tanh(ln(1 + e^z))`: `mish`.
    Mish,
    /// `1 / (1 + e^-z)`: `sigmoid`.
    Sigmoid,
    /// `min(max(z + 3, 0), 6) / 6`: `hardsigmoid`.
    Hardsigmoid,
    /// `-ln(1 + e^-z)`: `logsigmoid`.
    Logsigmoid,
    /// `ln(1 + e^z)`: `softplus`.
    Softplus,
    /// The hyperbolic tangent: `tanh`.
    Tanh,
    /// `min(max(z, -1), 1)`: `hardtanh`.
    Hardtanh,
    /// `z - tanh(z)`: `tanhshrink`.
    Tanhshrink,
    /// `z` where `|z| > 1/2`, else 0: `hardshrink`.
    Hardshrink,
    /// `z` moved towards 0 by 1/2, 0 within that distance: `softshrink`.
    Softshrink,
    /// `z / (1 + |z|)`: `softsign`.
    Softsign,
    /// The softmax of `-z` over the features of a token: `softmin`.
    Softmin,
    /// The distribution function of a normal with mean 0.707107 and deviation 0.282095: `laplace`.
    Laplace,
    /// `z`: `linear`.
    Linear,
}

impl Activation {
    /// Name and function; where several names mean one function, the first is the one written to files.
    const TABLE: [(&str, Self); 36] = [
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_tanh", Self::GeluTanh),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("gelu_10", Self::Gelu10),
        ("quick_gelu", Self::QuickGelu),
        ("relu", Self::Relu),
        ("threshold", Self::Relu),
        ("relu2", Self::ReluSquared),
        ("relu6", Self::Relu6),
        ("leaky_relu", Self::LeakyRelu),
        ("prelu", Self::Prelu),
        ("rrelu", Self::Rrelu),
        ("elu", Self::Elu),
        ("celu", Self::Elu),
        ("selu", Self::Selu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("hardswish", Self::Hardswish),
        ("mish", Self::Mish),
        ("sigmoid", Self::Sigmoid),
        ("hardsigmoid", Self::Hardsigmoid),
        ("logsigmoid", Self::Logsigmoid),
        ("softplus", Self::Softplus),
        ("tanh", Self::Tanh),
        ("hardtanh", Self::Hardtanh),
        ("tanhshrink", Self::Tanhshrink),
        ("hardshrink", Self::Hardshrink),
        ("softshrink", Self::Softshrink),
        ("softsign", Self::Softsign),
        ("softmin", Self::Softmin),
        ("laplace", Self::Laplace),
        ("linear", Self::Linear),
    ];

    /// Every name [`Activation::from_name`] understands.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::TABLE.iter().map(|(name, _)| *name)
    }

    /// The activation that Hugging Face or PyTorch calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::TABLE.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind)
    }

    /// The name written to files.
    pub fn name(self) -> &'static str {
        let found = Self::TABLE.iter().find(|(_, kind)| *kind == self);
        found.map_or("gelu", |(name, _)| name)
    }

    /// Parameters of the function itself: 1 for `prelu`, else 0.
    pub fn parameters(self) -> usize {
        usize::from(self == Self::Prelu)
    }
}

impl Serialize for Activation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Activation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| {
            let known: Vec<_> = Self::names().collect();
            de::Error::custom(format!(
                "{name:?} is no activation; give one of {}",
                known.join(", ")
            ))
        })
    }
}
