//! The meaning of each key of the authors' files.

/// The meaning of a key.
pub(super) enum Rule {
    /// A setting that is a whole number.
    Integer(&'static str),
    /// A setting that is a number.
    Float(&'static str),
    /// A setting that is true or false.
    Flag(&'static str),
    /// One of these values, the ones that this crate computes.
    Same(&'static [&'static str]),
    /// No effect on any result, or an argument of another command.
    Ignored(&'static str),
    /// Depends on other keys or units.
    Special,
}

use Rule::{Flag, Float, Ignored, Integer, Same, Special};

const PLACE: &str = "texts and tokenizer are named here: --corpus, data.tokenizer";
const RUN: &str = "a run is its folder: --out, resume";
const SPEED: &str = "how their code computes the same numbers";
const LOADER: &str = "the loader's own";
const LOG: &str = "metrics.jsonl and the dashboard hold the same series";

/// Keys with their rules; a `*` at the end matches any rest. The first match counts.
pub(super) const KEYS: &[(&str, Rule)] = &[
    ("data_local", Ignored(PLACE)),
    ("data_remote", Ignored(PLACE)),
    ("pretrain_data_local", Ignored("data.eval_corpus")),
    ("pretrain_data_remote", Ignored("data.eval_corpus")),
    ("max_seq_len", Integer("data.sequence_length")),
    ("tokenizer_name", Ignored(PLACE)),
    ("mlm_probability", Ignored("read by the loaders")),
    ("count_padding_tokens", Same(&["false"])),
    ("run_name", Ignored(RUN)),
    ("pretrain_run_name", Ignored(RUN)),
    ("context_extension_run_name", Ignored(RUN)),
    ("model.name", Same(&["flex_bert"])),
    (
        "model.pretrained_model_name",
        Ignored("[model] has every size"),
    ),
    ("model.tokenizer_name", Ignored(PLACE)),
    ("model.disable_train_metrics", Ignored(LOG)),
    ("model.model_config.vocab_size", Integer("model.vocab_size")),
    ("model.model_config.init_method", Same(&["full_megatron"])),
    (
        "model.model_config.init_std",
        Float("model.initializer_range"),
    ),
    (
        "model.model_config.num_hidden_layers",
        Integer("model.num_hidden_layers"),
    ),
    (
        "model.model_config.hidden_size",
        Integer("model.hidden_size"),
    ),
    (
        "model.model_config.intermediate_size",
        Integer("model.intermediate_size"),
    ),
    (
        "model.model_config.num_attention_heads",
        Integer("model.num_attention_heads"),
    ),
    ("model.model_config.attention_layer", Same(&["rope"])),
    (
        "model.model_config.attention_probs_dropout_prob",
        Float("dropout.attention_probabilities"),
    ),
    ("model.model_config.attn_out_bias", Same(&["false"])),
    (
        "model.model_config.attn_out_dropout_prob",
        Float("dropout.attention_output"),
    ),
    ("model.model_config.attn_qkv_bias", Same(&["false"])),
    ("model.model_config.bert_layer", Same(&["prenorm"])),
    (
        "model.model_config.embed_dropout_prob",
        Float("dropout.embedding"),
    ),
    ("model.model_config.embed_norm", Same(&["true"])),
    ("model.model_config.final_norm", Same(&["true"])),
    ("model.model_config.skip_first_prenorm", Same(&["true"])),
    ("model.model_config.embedding_layer", Same(&["sans_pos"])),
    (
        "model.model_config.loss_function",
        Same(&["fa_cross_entropy", "cross_entropy"]),
    ),
    ("model.model_config.loss_kwargs.reduction", Same(&["mean"])),
    ("model.model_config.mlp_dropout_prob", Float("dropout.mlp")),
    ("model.model_config.mlp_in_bias", Same(&["false"])),
    ("model.model_config.mlp_layer", Same(&["glu"])),
    ("model.model_config.mlp_out_bias", Same(&["false"])),
    ("model.model_config.normalization", Same(&["layernorm"])),
    (
        "model.model_config.norm_kwargs.eps",
        Same(&["1e-5", "1e-05"]),
    ),
    ("model.model_config.norm_kwargs.bias", Same(&["false"])),
    ("model.model_config.hidden_act", Same(&["gelu"])),
    ("model.model_config.head_pred_act", Same(&["gelu"])),
    ("model.model_config.activation_function", Same(&["gelu"])),
    ("model.model_config.padding", Ignored(SPEED)),
    ("model.model_config.rotary_emb_dim", Same(&["null"])),
    ("model.model_config.rotary_emb_base", Special),
    ("model.model_config.rotary_emb_scale_base", Same(&["null"])),
    (
        "model.model_config.rotary_emb_interleaved",
        Same(&["false"]),
    ),
    ("model.model_config.local_attn_rotary_emb_base", Special),
    (
        "model.model_config.local_attn_rotary_emb_dim",
        Same(&["null"]),
    ),
    (
        "model.model_config.allow_embedding_resizing",
        Ignored("model.vocab_size is the embedding's size"),
    ),
    (
        "model.model_config.sliding_window",
        Integer("model.local_attention"),
    ),
    (
        "model.model_config.global_attn_every_n_layers",
        Integer("model.global_attn_every_n_layers"),
    ),
    ("model.model_config.unpad_embeddings", Ignored(SPEED)),
    ("model.model_config.pad_logits", Ignored(SPEED)),
    ("model.model_config.use_fa2", Ignored(SPEED)),
    ("model.model_config.compile_model", Ignored(SPEED)),
    ("model.model_config.masked_prediction", Ignored(SPEED)),
    ("train_loader.name", Same(&["text"])),
    ("train_loader.dataset.local", Ignored(PLACE)),
    ("train_loader.dataset.remote", Ignored(PLACE)),
    ("train_loader.dataset.split", Ignored(PLACE)),
    ("train_loader.dataset.tokenizer_name", Ignored(PLACE)),
    ("train_loader.dataset.max_seq_len", Special),
    ("train_loader.dataset.shuffle", Same(&["true"])),
    ("train_loader.dataset.mlm_probability", Float("mask.train")),
    ("train_loader.dataset.streaming", Ignored(LOADER)),
    ("train_loader.dataset.shuffle_seed", Integer("data.seed")),
    ("train_loader.drop_last", Ignored(LOADER)),
    ("train_loader.num_workers", Ignored(LOADER)),
    ("train_loader.pin_memory", Ignored(LOADER)),
    ("train_loader.prefetch_factor", Ignored(LOADER)),
    ("train_loader.sequence_packing", Flag("batch.packing")),
    ("train_loader.batch_size_warmup_min_size", Special),
    ("train_loader.batch_size_warmup_tokens", Special),
    ("eval_loader.name", Same(&["text"])),
    (
        "eval_loader.dataset.local",
        Ignored("data.eval_corpus, or a held-out part of the corpus"),
    ),
    (
        "eval_loader.dataset.remote",
        Ignored("data.eval_corpus, or a held-out part of the corpus"),
    ),
    (
        "eval_loader.dataset.split",
        Ignored("data.eval_corpus, or a held-out part of the corpus"),
    ),
    ("eval_loader.dataset.tokenizer_name", Ignored(PLACE)),
    (
        "eval_loader.dataset.max_seq_len",
        Ignored("data.sequence_length"),
    ),
    ("eval_loader.dataset.shuffle", Same(&["false"])),
    ("eval_loader.dataset.mlm_probability", Float("mask.eval")),
    ("eval_loader.dataset.streaming", Ignored(LOADER)),
    ("eval_loader.drop_last", Ignored(LOADER)),
    ("eval_loader.num_workers", Ignored(LOADER)),
    ("eval_loader.sequence_packing", Same(&["false"])),
    ("scheduler.name", Special),
    ("scheduler.t_warmup", Special),
    ("scheduler.t_decay", Special),
    ("scheduler.t_max", Special),
    ("scheduler.alpha_f", Special),
    ("optimizer.name", Special),
    ("optimizer.lr", Float("optimizer.learning_rate")),
    ("optimizer.betas", Special),
    ("optimizer.eps", Float("optimizer.epsilon")),
    ("optimizer.weight_decay", Float("optimizer.weight_decay")),
    ("optimizer.filter_bias_norm_wd", Same(&["true"])),
    ("optimizer.log_grad_norm", Ignored(LOG)),
    (
        "algorithms.gradient_clipping.clipping_type",
        Same(&["norm"]),
    ),
    (
        "algorithms.gradient_clipping.clipping_threshold",
        Float("optimizer.max_grad_norm"),
    ),
    ("max_duration", Special),
    ("eval_interval", Special),
    ("global_train_batch_size", Special),
    (
        "global_eval_batch_size",
        Ignored("run.eval_tokens is the size of an evaluation"),
    ),
    (
        "device_eval_batch_size",
        Ignored("run.eval_tokens is the size of an evaluation"),
    ),
    (
        "device_eval_microbatch_size",
        Ignored("run.eval_tokens is the size of an evaluation"),
    ),
    ("device_train_microbatch_size", Special),
    ("seed", Integer("run.seed")),
    ("precision", Special),
    ("progress_bar", Ignored(LOG)),
    ("log_to_console", Ignored(LOG)),
    ("console_log_interval", Special),
    ("callbacks.*", Ignored(LOG)),
    ("loggers.*", Ignored(LOG)),
    ("save_interval", Special),
    ("save_num_checkpoints_to_keep", Special),
    ("save_folder", Ignored(RUN)),
    (
        "load_path",
        Ignored("run RECIPE --from CHECKPOINT, or phases of one recipe"),
    ),
    ("autoresume", Ignored(RUN)),
    ("auto_resume", Ignored(RUN)),
    ("reset_time", Same(&["true"])),
    ("restart_override", Same(&["true"])),
    (
        "init_from_checkpoint.checkpoint_cfg",
        Ignored("the smaller model's folder has its config.json"),
    ),
    (
        "init_from_checkpoint.checkpoint_load_path",
        Ignored("--set model.tile_from=FOLDER"),
    ),
    (
        "init_from_checkpoint.checkpoint_run_name",
        Ignored("--set model.tile_from=FOLDER"),
    ),
    ("init_from_checkpoint.mode", Special),
];
