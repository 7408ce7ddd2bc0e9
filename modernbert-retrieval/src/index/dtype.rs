//! Stored forms of a vector's components.

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

use crate::kernel::LANES;

/// Stored form of the components.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes, 11 significant bits.
    #[default]
    F16,
    /// 1 byte: the component divided by the vector's largest magnitude, times 127, rounded.
    Int8,
}

impl Dtype {
    /// Name as in arguments and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a component.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    pub(crate) fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Int8 => 2,
        }
    }

    pub(crate) fn of_code(code: u32) -> Option<Self> {
        [Self::F32, Self::F16, Self::Int8]
            .into_iter()
            .find(|dtype| dtype.code() == code)
    }

    /// Largest magnitude of a component. For f32 it keeps the sum of 65536 squares finite.
    pub(crate) fn largest(self) -> f32 {
        match self {
            Self::F16 => 65504.0,
            Self::F32 | Self::Int8 => 1e16,
        }
    }

    /// Least magnitude of a vector's largest component: below it f16 has fewer than 11 bits or none.
    pub(crate) fn smallest(self) -> f32 {
        match self {
            Self::F16 => f16::MIN_POSITIVE.to_f32(),
            Self::F32 | Self::Int8 => 0.0,
        }
    }

    /// Appends a panel of f32 components in this form.
    pub(crate) fn encode(self, panel: &[f32], scales: &[f32; LANES], out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend(panel.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => out.extend(
                panel
                    .iter()
                    .flat_map(|&value| f16::from_f32(value).to_le_bytes()),
            ),
            Self::Int8 => {
                for components in panel.chunks_exact(LANES) {
                    let quantized = components.iter().zip(scales).map(|(&value, &scale)| {
                        let steps = if scale > 0.0 {
                            (value / scale).round()
                        } else {
                            0.0
                        };
                        steps.clamp(-127.0, 127.0) as i8
                    });
                    out.extend(quantized.map(|step| step as u8));
                }
            }
        }
    }

    /// Decodes stored components to f32; for int8 without the scale of the vector.
    pub(crate) fn decode(self, stored: &[u8], out: &mut Vec<f32>) {
        out.clear();
        match self {
            Self::F32 => {
                let values = stored.chunks_exact(4);
                out.extend(
                    values
                        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
                );
            }
            Self::F16 => match bytemuck::try_cast_slice::<u8, u16>(stored) {
                // The map is aligned; on a big-endian machine the bytes are in the wrong order.
                Ok(bits) if cfg!(target_endian = "little") => {
                    use half::slice::HalfBitsSliceExt;
                    let values: &[f16] = bits.reinterpret_cast();
                    out.resize(values.len(), 0.0);
                    values.convert_to_f32_slice(out);
                }
                _ => {
                    let values = stored.chunks_exact(2);
                    out.extend(
                        values.map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()),
                    );
                }
            },
            Self::Int8 => out.extend(stored.iter().map(|&byte| f32::from(byte as i8))),
        }
    }

    /// Step size of a vector's components: 1 for floating-point forms.
    pub(crate) fn scale(self, vector: &[f32]) -> f32 {
        match self {
            Self::F32 | Self::F16 => 1.0,
            Self::Int8 => {
                vector
                    .iter()
                    .fold(0.0f32, |largest, value| largest.max(value.abs()))
                    / 127.0
            }
        }
    }
}
