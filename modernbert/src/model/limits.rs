//! Checks of tensor sizes before allocation, for devices with a maximum size of a tensor.

use burn::tensor::Device;

use super::ModernBert;
use crate::config::flexbert::LayerSpec;
use crate::config::{ConfigError, ModernBertConfig};
use crate::device::largest_tensor;

/// Bytes of an f32.
const FLOAT: u64 = 4;

/// Refuses a config with a matrix that the device can't hold in one piece.
pub(super) fn check_weights(config: &ModernBertConfig, device: &Device) -> Result<(), ConfigError> {
    match largest_tensor(device) {
        Some(limit) => check_weights_within(config, limit),
        None => Ok(()),
    }
}

fn check_weights_within(config: &ModernBertConfig, limit: u64) -> Result<(), ConfigError> {
    let hidden = config.hidden_size;
    let spec = config.spec();
    let mut matrices = vec![("token embedding", "vocab_size", config.vocab_size)];
    if let Some(rows) = spec.positions {
        matrices.push(("position embedding", "max_position_embeddings", rows));
    }
    for layer in &spec.layers {
        let (qkv, into) = (layer.attention.qkv_rows(), layer.mlp.in_rows());
        match layer.is_parallel() {
            true => matrices.push(("matrix Wqkvff", "its rows", qkv + into)),
            false => {
                matrices.push(("matrix Wqkv", "3 * hidden_size", qkv));
                matrices.push(("matrix Wi", "2 * intermediate_size", into));
            }
        }
    }
    for (name, rows_are, rows) in matrices {
        let needed = FLOAT
            .saturating_mul(rows as u64)
            .saturating_mul(hidden as u64);
        if needed > limit {
            return Err(ConfigError::TooLarge {
                what: format!("the {name} ({rows_are} {rows} x hidden_size {hidden}, f32)"),
                needed,
                limit,
                remedy: "run this model on another device, such as --device flex".to_string(),
            });
        }
    }
    Ok(())
}

/// Bytes of the widest tensor of a forward pass for one token: queries, keys and values, or the gated layer before its gate.
fn token_bytes(config: &ModernBertConfig) -> u64 {
    let widths = |layer: &LayerSpec| {
        let (qkv, into) = (layer.attention.qkv_rows(), layer.mlp.in_rows());
        // Heads that share keys and values have copies of them in attention.
        let copied = 3 * layer.attention.width();
        match layer.is_parallel() {
            true => copied.max(qkv + into),
            false => copied.max(qkv).max(into),
        }
    };
    let widest = config.spec().layers.iter().map(widths).max();
    FLOAT * widest.unwrap_or(config.hidden_size).max(1) as u64
}

/// Tokens that a forward pass can take on `device`; `usize::MAX` where only memory limits it.
pub(crate) fn most_tokens(config: &ModernBertConfig, device: &Device) -> usize {
    let limit = largest_tensor(device).map(|limit| limit / token_bytes(config));
    limit.map_or(usize::MAX, |tokens| {
        usize::try_from(tokens).unwrap_or(usize::MAX)
    })
}

impl ModernBert {
    /// Checks that the device can hold each tensor of a forward pass over `tokens` tokens. Without the check, the backend
    /// panics.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`]: more tokens than the device binds at once at this model's width.
    pub fn check_tokens(&self, tokens: usize) -> Result<(), ConfigError> {
        let most = most_tokens(self.config(), &self.device());
        if tokens <= most {
            return Ok(());
        }
        let bytes = token_bytes(self.config());
        Err(ConfigError::TooLarge {
            what: format!("a batch of {tokens} tokens at this model's width"),
            needed: bytes.saturating_mul(tokens as u64),
            limit: bytes.saturating_mul(most as u64),
            remedy: format!("give at most {most} tokens at once, or use another device"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_beyond_the_limit_is_named_with_its_size() {
        let webgpu = 128 << 20;
        let mut config = ModernBertConfig::base();
        let message = check_weights_within(&config, webgpu)
            .unwrap_err()
            .to_string();
        for part in ["token embedding", "50368", "154730496", "134217728", "flex"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(check_weights_within(&config, 154_730_496).is_ok());
        config.vocab_size = 1000;
        assert!(check_weights_within(&config, webgpu).is_ok());
        config.intermediate_size = 1 << 20;
        let message = check_weights_within(&config, webgpu)
            .unwrap_err()
            .to_string();
        assert!(message.contains("Wi"), "{message}");
    }

    #[test]
    fn the_widest_tensor_of_a_pass_is_that_of_the_wider_product() {
        assert_eq!(token_bytes(&ModernBertConfig::base()), 4 * 3 * 768);
        assert_eq!(token_bytes(&ModernBertConfig::large()), 4 * 2 * 2624);
    }
}
