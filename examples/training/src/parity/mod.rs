//! Comparison of a model folder with numbers that transformers computed for it.
//!
//! A case is a folder with the files of `save_pretrained`, `inputs.safetensors` and `outputs.safetensors`; for training also
//! labels among the inputs, `grads.safetensors`, `losses.safetensors` and `training.json`. `docs/parity.md` describes the
//! files; `scripts/parity/make_cases.py` writes them.
//!
//! | item | contents |
//! |---|---|
//! | [`Case`] | the folder's inputs, unpadded |
//! | [`AnyModel`] | the model, with the head that `architectures` names |
//! | [`check`] | runs the case and compares |

mod case;
mod compare;
mod model;
mod tensors;
mod training;

pub use case::Case;
pub use compare::{Check, Report, Tolerances, check};
pub use model::{AnyModel, save_copy};
pub use tensors::Tensors;
pub use training::{OptimizerSettings, Training};
