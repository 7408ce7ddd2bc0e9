//! Texts to vectors.

use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::config::Pooling;
use modernbert::inference::{
    BatchOptions, EmbedOptions, Embedding, Encoder, InferenceError, Input, StreamProgress,
};
use modernbert::model::{ModernBert, NamedMapper, Precision, map_named};

use crate::model::{TEXTS, config, randomize, tokenizer};
use test_support::{assert_close, bits, computes_in, device, read, relative_rms_error, wide};

fn encoder_with(options: EmbedOptions, batches: BatchOptions) -> Encoder {
    let model = randomize(ModernBert::new(&config(), &device()).unwrap());
    Encoder::new(model, tokenizer(), options, batches).unwrap()
}

fn encoder(batch_tokens: usize) -> Encoder {
    let batches = BatchOptions {
        batch_tokens,
        ..BatchOptions::default()
    };
    encoder_with(EmbedOptions::default(), batches)
}

fn inputs() -> Vec<Input<'static>> {
    let mut inputs: Vec<Input<'static>> = TEXTS.iter().map(|&text| text.into()).collect();
    inputs.push(("one two", "three").into());
    inputs
}

#[test]
fn every_batch_size_gives_the_same_vectors_in_the_order_of_the_texts() {
    let inputs = inputs();
    let expected: Vec<Embedding> = inputs
        .iter()
        .map(|input| {
            encoder(8192)
                .encode(std::slice::from_ref(input))
                .unwrap()
                .remove(0)
        })
        .collect();
    for budget in [1, 7, 20, 8192] {
        let found = encoder(budget).encode(&inputs).unwrap();
        assert_eq!(found.len(), expected.len());
        for ((found, expected), input) in found.iter().zip(&expected).zip(&inputs) {
            assert_eq!(found.tokens, expected.tokens, "{input:?}");
            assert_close(&found.values, &wide(&expected.values), 1e-5, &input.text);
        }
    }
}

/// A vector of zeros has no direction: scaled to length one it is undefined, and its cosine with every vector is 0.
#[test]
fn a_vector_of_zeros_is_an_error_that_names_the_text() {
    struct Zeros;
    impl NamedMapper for Zeros {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            match name.contains("tok_embeddings") {
                true => value.zeros_like(),
                false => value,
            }
        }
    }
    let model = randomize(ModernBert::new(&config(), &device()).unwrap());
    let model = map_named(model, &mut Zeros);
    for normalize in [true, false] {
        let options = EmbedOptions {
            normalize,
            ..EmbedOptions::default()
        };
        let encoder =
            Encoder::new(model.clone(), tokenizer(), options, BatchOptions::default()).unwrap();
        let message = encoder.encode(&["one two"]).unwrap_err().to_string();
        assert!(message.starts_with("text 1: all numbers"), "{message}");
    }
}

/// Weights in half precision change no bit, nor does a captured graph (CUDA) that the batch fills; one that it fills in part computes more rows. Packed
/// layers (CPU) sum in another order.
#[test]
fn a_model_for_inference_gives_the_values_of_the_model() {
    let sequence = |length: usize| -> Vec<u32> { (0..length).map(|i| (i % 40) as u32).collect() };
    let full: [&[usize]; 4] = [&[16], &[64], &[20, 44], &[250, 6]];
    let partly: [&[usize]; 4] = [&[5], &[3, 7, 1], &[60, 1, 0, 3], &[129]];
    let is_cpu = format!("{:?}", device()).to_lowercase().contains("flex");
    for (precision, limit) in [
        (Precision::F32, 1e-5),
        (Precision::Bf16, 1e-2),
        (Precision::F16, 2e-3),
    ] {
        if !computes_in(precision.dtype()) {
            continue;
        }
        let model = randomize(ModernBert::new(&config(), &device()).unwrap());
        let model = model.with_precision(precision);
        let lowered = model.clone().for_inference();
        // f16 has no packed form.
        let packed = is_cpu && precision != Precision::F16;
        assert_eq!(lowered.packed_for().is_some(), packed);
        let both = |lengths: &[usize]| {
            let sequences: Vec<_> = lengths.iter().map(|&length| sequence(length)).collect();
            let batch = PackedBatch::from_sequences(&sequences, &device()).unwrap();
            let exact = read(model.clone().with_precision(Precision::F32).forward(&batch));
            let found = read(lowered.forward(&batch));
            (wide(&exact), read(model.forward(&batch)), found)
        };
        // Three times: a size is captured at its second batch, and boundaries of the batch before must not remain.
        for _ in 0..3 {
            for lengths in full.iter().chain(&partly) {
                let (exact, expected, found) = both(lengths);
                let what = format!("{precision:?}, {lengths:?}");
                if packed && precision == Precision::Bf16 {
                    // The two passes round at different points; both are equally accurate.
                    let [found, expected] =
                        [found, expected].map(|x| relative_rms_error(&wide(&x), &exact));
                    assert!(found <= 1.5 * expected, "{what}: {found:e}, {expected:e}");
                } else if full.contains(lengths) && !packed {
                    assert_eq!(bits(&found), bits(&expected), "{what}");
                } else {
                    assert_close(&found, &wide(&expected), limit, &what);
                }
            }
        }
    }
}

/// Packed layers are no parameters: a file without them would be no model.
#[cfg(feature = "flex")]
#[test]
fn a_model_packed_for_inference_is_not_saved() {
    let model = ModernBert::new(&config(), &burn::tensor::Device::flex()).unwrap();
    let packed = model.for_inference();
    assert!(packed.packed_for().is_some());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    let error = modernbert::checkpoint::save(&packed, &config(), &folder).unwrap_err();
    assert!(
        error.to_string().contains("before `for_inference`"),
        "{error}"
    );
    assert!(!folder.exists());
}

#[test]
fn what_the_neighbours_say_changes_no_bit() {
    let encoder = encoder(24);
    // Letters the tokenizer never saw: one token each, so that texts keep their lengths with any letter.
    let texts = |letters: &[&str]| -> Vec<Input<'static>> {
        let lengths = [3, 0, 17, 1, 40, 12, 2, 3];
        let text = |(&length, letter): (&usize, &&str)| letter.repeat(length).into();
        lengths.iter().zip(letters).map(text).collect()
    };
    let before = encoder.encode(&texts(&["q"; 8])).unwrap();
    for kept in 0..8 {
        let mut letters = ["z"; 8];
        letters[kept] = "q";
        let after = encoder.encode(&texts(&letters)).unwrap();
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before.tokens, after.tokens);
            let same = bits(&before.values) == bits(&after.values);
            // The empty text is the same for every letter.
            assert_eq!(same, i == kept || i == 1, "text {i}, kept {kept}");
        }
    }
}

/// The pooled vector of one text from its tokens' states, `rows` of `width` numbers, by loops over numbers.
fn pooled_by_hand(rows: &[f64], width: usize, pooling: Pooling) -> Vec<f64> {
    let tokens: Vec<&[f64]> = rows.chunks(width).collect();
    let count = tokens.len() as f64;
    let of_feature = |feature: usize| -> f64 {
        let values = tokens.iter().map(|token| token[feature]);
        match pooling {
            Pooling::Cls => tokens[0][feature],
            Pooling::Mean => values.sum::<f64>() / count,
            Pooling::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Pooling::WeightedMean => {
                let weighted = values
                    .zip(1..)
                    .map(|(value, weight)| value * f64::from(weight));
                weighted.sum::<f64>() / (count * (count + 1.0) / 2.0)
            }
        }
    };
    (0..width).map(of_feature).collect()
}

#[test]
fn a_vector_is_the_pooled_hidden_state_of_its_text() {
    let mut seen = Vec::new();
    for pooling in Pooling::ALL {
        for normalize in [false, true] {
            let options = EmbedOptions { pooling, normalize };
            let encoder = encoder_with(options, BatchOptions::default());
            let found = encoder.encode(&[("one two", "three")]).unwrap().remove(0);
            let ids = tokenizer().encode_pair("one two", "three").unwrap();
            assert_eq!(found.tokens, ids.len());
            let batch = modernbert::batch::PackedBatch::from_sequences(&[ids], &device()).unwrap();
            let hidden = encoder.model().forward(&batch);
            let width = hidden.dims()[1];
            let mut expected = pooled_by_hand(&wide(&read(hidden)), width, pooling);
            if normalize {
                let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
                expected.iter_mut().for_each(|x| *x /= norm);
            }
            assert_close(&found.values, &expected, 1e-6, pooling.name());
            assert!(!seen.contains(&found.values), "{}", pooling.name());
            seen.push(found.values);
        }
    }
}

#[test]
fn a_stream_yields_what_a_list_yields_and_reads_a_window_at_a_time() {
    let batches = BatchOptions {
        batch_tokens: 30,
        window: 3,
        ..BatchOptions::default()
    };
    let encoder = encoder_with(EmbedOptions::default(), batches);
    let inputs = inputs();
    let expected = encoder.encode(&inputs).unwrap();
    let (read, last) = (
        std::cell::Cell::new(0),
        std::cell::Cell::new(StreamProgress::default()),
    );
    let source = inputs.iter().map(|input| {
        read.set(read.get() + 1);
        Ok::<_, InferenceError>(input.clone())
    });
    let mut stream = encoder.stream(source, |progress| last.set(progress));
    for (i, expected) in expected.iter().enumerate() {
        let found = stream.next().unwrap().unwrap();
        assert_eq!(found.tokens, expected.tokens);
        assert_close(&found.values, &wide(&expected.values), 1e-5, "stream");
        assert!(
            read.get() <= (i / 3 + 1) * 3,
            "{} read for result {i}",
            read.get()
        );
    }
    assert!(stream.next().is_none());
    drop(stream);
    let tokens = expected.iter().map(|e| e.tokens).sum();
    let done = inputs.len();
    assert_eq!(
        last.get(),
        StreamProgress {
            done,
            total: done,
            tokens
        }
    );
}

#[test]
fn a_window_is_bounded_in_bytes_too() {
    let batches = BatchOptions {
        window_bytes: 10,
        ..BatchOptions::default()
    };
    let encoder = encoder_with(EmbedOptions::default(), batches);
    let read = std::cell::Cell::new(0);
    let source = (0..10).map(|_| {
        read.set(read.get() + 1);
        Ok::<_, InferenceError>("one two three".into())
    });
    let mut stream = encoder.stream(source, |_| {});
    stream.next().unwrap().unwrap();
    assert_eq!(read.get(), 1);
    assert_eq!(stream.count(), 9);
}

#[test]
fn an_error_of_the_source_comes_after_the_results_before_it() {
    #[derive(Debug)]
    struct Broken;
    impl From<InferenceError> for Broken {
        fn from(error: InferenceError) -> Self {
            panic!("{error}")
        }
    }
    let source = vec![
        Ok("one".into()),
        Ok("two".into()),
        Err(Broken),
        Ok("three".into()),
    ];
    let found: Vec<bool> = encoder(99)
        .stream(source, |_| {})
        .map(|r| r.is_ok())
        .collect();
    assert_eq!(found, [true, true, false]);
}

#[test]
fn long_texts_are_cut_and_say_so() {
    let batches = BatchOptions {
        max_length: Some(5),
        ..BatchOptions::default()
    };
    let found = encoder_with(EmbedOptions::default(), batches)
        .encode(&inputs())
        .unwrap();
    for (found, input) in found.iter().zip(inputs()) {
        assert!(found.tokens <= 5);
        let whole = match &input.pair {
            Some(pair) => tokenizer().encode_pair(&input.text, pair),
            None => tokenizer().encode(&input.text),
        };
        assert_eq!(found.truncated, whole.unwrap().len() > 5);
    }
    let endless = encoder(8192).encode(&["one ".repeat(500)]).unwrap();
    assert_eq!((endless[0].tokens, endless[0].truncated), (64, true));
}

#[test]
fn a_prompt_that_fills_the_length_is_refused() {
    let prompt = "one two three ";
    let tokens = tokenizer().encode(prompt.trim_end()).unwrap().len();
    for (max_length, fits) in [(tokens, false), (tokens + 1, true)] {
        let batches = BatchOptions {
            max_length: Some(max_length),
            ..BatchOptions::default()
        };
        let encoder = encoder_with(EmbedOptions::default(), batches);
        let encoder = encoder.with_prompt(Some(prompt.to_string()));
        let found = encoder.encode(&["one", "two"]);
        assert_eq!(found.is_ok(), fits);
        if let Err(error) = found {
            let message = error.to_string();
            assert!(message.contains("shorten the prompt"), "{message}");
        }
    }
}

#[test]
fn a_pooling_without_the_prompt_refuses_one() {
    let folder = tiny_models::masked_lm();
    let pooling = folder.path().join("1_Pooling");
    std::fs::create_dir(&pooling).unwrap();
    std::fs::write(pooling.join("config.json"), "{\"include_prompt\": false}").unwrap();
    let encoder = Encoder::load(folder.path()).unwrap();
    assert!(encoder.encode(&["one"]).is_ok());
    let encoder = encoder.with_prompt(Some("q: ".to_string()));
    let error = encoder.encode(&["one"]).unwrap_err().to_string();
    assert!(error.contains("include_prompt"), "{error}");
}

#[test]
fn settings_that_cant_work_are_named() {
    let make = |batches| {
        let model = ModernBert::new(&config(), &device()).unwrap();
        Encoder::new(model, tokenizer(), EmbedOptions::default(), batches)
            .unwrap_err()
            .to_string()
    };
    let none = BatchOptions {
        batch_tokens: 0,
        ..BatchOptions::default()
    };
    assert!(make(none).contains("1 or more"));
    let long = BatchOptions {
        max_length: Some(65),
        ..BatchOptions::default()
    };
    assert!(make(long).contains("the model takes 64"));
    let mut small = config();
    small.vocab_size = 200; // The tokenizer has 320.
    (
        small.bos_token_id,
        small.eos_token_id,
        small.cls_token_id,
        small.sep_token_id,
    ) = (None, None, None, None);
    let model = ModernBert::new(&small, &device()).unwrap();
    let encoder = Encoder::new(
        model,
        tokenizer(),
        EmbedOptions::default(),
        BatchOptions::default(),
    );
    let error = encoder.unwrap_err().to_string();
    assert!(error.contains("belongs to another model"), "{error}");
}

#[test]
fn no_text_is_no_vector() {
    assert_eq!(encoder(10).encode::<&str>(&[]).unwrap(), []);
}
