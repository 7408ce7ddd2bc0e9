//! Paths, and models that a recipe continues.

use super::*;

#[test]
fn paths_are_relative_to_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let text = "\
model = { from = 'model', tile_from = '/large' }
data = { corpus = ['a.txt', '/b'], eval_corpus = 'registry', tokenizer = 'tok' }
[[phase]]
name = 'x'
run.total_tokens = 1
data.corpus = 'registry'
[[phase]]
name = 'y'
run.total_tokens = 1
data.corpus = 'shards'
";
    std::fs::write(&path, text).unwrap();
    let recipe = Recipe::from_file(&path).unwrap();
    let inside = |name: &str| folder.path().join(name);
    assert_eq!(
        recipe.data.corpus,
        CorpusSource::Paths(vec![inside("a.txt"), "/b".into()])
    );
    assert_eq!(recipe.data.eval_corpus, Some(CorpusSource::Registry));
    assert_eq!(recipe.data.tokenizer, TokenizerSource::Path(inside("tok")));
    assert_eq!(recipe.model.from.as_deref(), inside("model").to_str());
    assert_eq!(recipe.model.tile_from, Some("/large".into()));
    let phases = recipe.phases().unwrap();
    assert_eq!(phases[0].recipe.data.corpus, CorpusSource::Registry);
    assert_eq!(
        phases[1].recipe.data.corpus,
        CorpusSource::Paths(vec![inside("shards")])
    );
    std::fs::write(&path, "model.from = 'org/name'\nrun.total_tokens = 1").unwrap();
    let recipe = Recipe::from_file(&path).unwrap();
    assert_eq!(recipe.model.from.as_deref(), Some("org/name"));
}

#[test]
fn a_published_model_gives_sizes_and_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = modernbert::config::ModernBertConfig::of_shape(4, 32, 48, 2);
    config.vocab_size = 384;
    config.max_position_embeddings = 64;
    (config.bos_token_id, config.eos_token_id) = (None, None);
    (
        config.cls_token_id,
        config.sep_token_id,
        config.pad_token_id,
    ) = (None, None, None);
    config.global_rope_theta = 12_345.0;
    config.save(folder.path().join("config.json")).unwrap();
    let from = folder.path().to_str().unwrap();
    let recipe = |more: &str| {
        let text = format!("model.from = '{from}'\nrun.total_tokens = 1_000_000\n{more}");
        Recipe::from_str(&text, "r.toml").unwrap()
    };
    let (resolved, found) = recipe("").resolve_model().unwrap();
    let place = folder.path().canonicalize().unwrap();
    assert_eq!(found.as_ref(), Some(&place));
    assert_eq!(resolved.data.tokenizer, TokenizerSource::Path(place));
    let mine = resolved.model.config(300).unwrap();
    let sizes = |c: &modernbert::config::ModernBertConfig| {
        (
            c.vocab_size,
            c.hidden_size,
            c.num_hidden_layers,
            c.global_rope_theta,
        )
    };
    assert_eq!(sizes(&mine), sizes(&config));
    // What was resolved is a recipe by itself.
    let again = Recipe::from_str(&resolved.to_toml().unwrap(), "x").unwrap();
    assert_eq!(again.resolve_model().unwrap().0, resolved);
    let longer = recipe("model.global_rope_theta = 160_000.0").resolve_model();
    assert_eq!(longer.unwrap().0.model.global_rope_theta, Some(160_000.0));
    for (more, said) in [
        (
            "model.hidden_size = 64",
            "model.hidden_size is 64, and the model has 32",
        ),
        ("model.preset = '17m'", "no model of the preset"),
        ("data.tokenizer = 'other'", "leave data.tokenizer out"),
        (
            "model.tile_from = 'other'",
            "weights come from one of the two",
        ),
    ] {
        let message = recipe(more).resolve_model().unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
    config.norm_eps = 1e-3;
    config.save(folder.path().join("config.json")).unwrap();
    let message = recipe("").resolve_model().unwrap_err().to_string();
    assert!(message.contains("norm_eps"), "{message}");
    let nowhere = Recipe::from_str("model.from = './nowhere'", "r.toml").unwrap();
    let message = nowhere.resolve_model().unwrap_err().to_string();
    assert!(message.contains("./nowhere"), "{message}");
}
