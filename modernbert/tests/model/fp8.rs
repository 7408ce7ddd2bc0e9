//! Encoders whose matrix multiplications are in fp8: close to bf16 where the kernels run, unchanged elsewhere.

use burn::tensor::DType;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint;
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, ModernBert, Precision, initialize};
use test_support::{computes_in, device, ids, read, relative_rms_error, skip, wide};

use crate::toy;

/// Widths that are multiples of 16, as fp8 needs.
fn config() -> ModernBertConfig {
    ModernBertConfig {
        hidden_size: 128,
        num_attention_heads: 2,
        intermediate_size: 96,
        ..toy::config(4)
    }
}

fn model(config: &ModernBertConfig) -> MaskedLm {
    let model = MaskedLm::new(config, &device()).unwrap();
    let mut model = initialize(model, config, 3);
    model.model = model.model.with_precision(Precision::Bf16);
    model
}

fn batch() -> PackedBatch {
    let sequences = [ids(4, 70, toy::VOCAB as u32), ids(5, 9, toy::VOCAB as u32)];
    PackedBatch::from_sequences(&sequences, &device()).unwrap()
}

fn relative(found: &ModernBert, expected: &ModernBert) -> f64 {
    let [found, expected] = [found, expected].map(|model| wide(&read(model.forward(&batch()))));
    relative_rms_error(&found, &expected)
}

#[test]
fn hidden_states_stay_within_five_percent_of_bf16() {
    let model = model(&config());
    let exact = model.model.clone().for_inference().without_graphs();
    if !model.model.supports_fp8() {
        skip("the device has no fp8 kernels");
        return;
    }
    let mut quantized = model.clone();
    quantized.model = quantized.model.with_fp8(true).for_inference();
    assert!(quantized.model.is_quantized());
    let error = relative(&quantized.model, &exact);
    assert!((1e-4..0.05).contains(&error), "{error}");
    // The states between the layers are those of the same pass.
    let states = quantized.model.hidden_states(&batch());
    let last = wide(&read(states[4].clone()));
    let whole = wide(&read(
        quantized.model.clone().without_graphs().forward(&batch()),
    ));
    assert_eq!(last, whole);
    let folder = tempfile::tempdir().unwrap();
    let refused = checkpoint::save(&quantized, &config(), folder.path()).unwrap_err();
    assert!(refused.to_string().contains("for inference"), "{refused}");
}

#[test]
fn a_model_that_cannot_be_quantized_stays_as_it_is() {
    // An odd width, f32, and on most devices everything.
    let narrow = ModernBertConfig {
        intermediate_size: 100,
        ..config()
    };
    let f32_model = model(&config()).model.with_precision(Precision::F32);
    let mut models = vec![f32_model];
    if computes_in(DType::BF16) {
        models.push(model(&narrow).model);
    }
    for model in models {
        assert!(!model.supports_fp8());
        let plain = model.clone().for_inference();
        let chosen = model.with_fp8(true).for_inference();
        assert!(!chosen.is_quantized());
        assert_eq!(relative(&chosen, &plain), 0.0);
    }
}
