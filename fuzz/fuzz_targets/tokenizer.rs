//! tokenizer.json: an accepted tokenizer encodes and decodes without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{memory::bounded, tokenizer::Tokenizer};

fuzz_target!(|data: &[u8]| {
    bounded(data.len(), 1 << 20, || {
        let Ok(tokenizer) = Tokenizer::from_bytes(data, "fuzz") else { return };
        let text = "Two words, 3 numbers 456 \u{e9}\u{4e2d}\n\t[MASK] end";
        let _ = tokenizer.encode_truncated(text, Some("more"), 8);
        if let Ok(encoded) = tokenizer.encode_with_offsets(text) {
            assert_eq!(encoded.ids.len(), encoded.offsets.len());
            let _ = tokenizer.decode(&encoded.ids);
        }
    });
});
