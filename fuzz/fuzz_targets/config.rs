//! config.json: an accepted config is the same after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{config::ModernBertConfig, memory::bounded};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The list of layer types may have 65536 entries, for a file of any size.
    bounded(data.len(), 1 << 18, || {
        let Ok(config) = ModernBertConfig::from_json_str(text, "fuzz") else { return };
        let _ = config.encoder_parameters();
        let _ = config.check_trainable();
        if config.num_hidden_layers < 64 {
            let again = ModernBertConfig::from_json_str(&config.to_json_string(), "written");
            assert_eq!(again.expect("what is written can be read"), config);
        }
    });
});
