//! Phases.

use super::*;

#[test]
fn a_phase_is_the_recipe_with_what_differs() {
    let recipe = Recipe::from_str(PHASES, "x").unwrap();
    recipe.validate().unwrap();
    let phases = recipe.phases().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    let (first, second) = (&phases[0].recipe, &phases[1].recipe);
    assert_eq!(
        (
            first.optimizer.learning_rate,
            second.optimizer.learning_rate
        ),
        (8e-4, 1e-4)
    );
    assert_eq!(
        (first.schedule.kind(), second.schedule.kind()),
        ("warmup_stable_decay", "one_minus_sqrt")
    );
    assert_eq!(
        (first.run.total_tokens, second.run.total_tokens),
        (1_000_000, 500_000)
    );
    assert_eq!(second.model.global_rope_theta, Some(160_000.0));
    assert_eq!(second.data, first.data);
    let text = recipe.to_toml().unwrap();
    assert_eq!(Recipe::from_str(&text, "x").unwrap(), recipe, "{text}");
    let alone = recipe.only_phase("second").unwrap();
    assert_eq!(alone.phases().unwrap(), [phases[1].clone()]);
    assert!(
        recipe
            .only_phase("third")
            .unwrap_err()
            .to_string()
            .contains("first, second")
    );
}

#[test]
fn a_recipe_without_phases_is_one_phase() {
    let phases = demo().phases().unwrap();
    assert_eq!(phases.len(), 1);
    assert_eq!(
        (phases[0].name.as_str(), &phases[0].recipe),
        ("train", &demo())
    );
}

#[test]
fn single_phases_are_changed_from_the_command_line() {
    let recipe = Recipe::from_str(PHASES, "x").unwrap();
    let set = |text: &str| recipe.with_overrides(&[text.to_owned()]);
    let changed = set("phase.second.optimizer.learning_rate=5e-5").unwrap();
    assert_eq!(
        changed.phases().unwrap()[1].recipe.optimizer.learning_rate,
        5e-5
    );
    let changed = set("phase.first.schedule.kind=constant").unwrap();
    assert_eq!(
        changed.phases().unwrap()[0].recipe.schedule.kind(),
        "constant"
    );
    let changed = set("optimizer.weight_decay=1e-6").unwrap();
    assert!(
        changed
            .phases()
            .unwrap()
            .iter()
            .all(|phase| phase.recipe.optimizer.weight_decay == 1e-6)
    );
    for (text, expected) in [
        (
            "run.total_tokens=7",
            "phases set it themselves (first, second): write phase.first.run.total_tokens=7",
        ),
        (
            "schedule.warmup_tokens=7",
            "phase.second.schedule.warmup_tokens=7",
        ),
        ("phase.third.run.seed=1", "the phases are: first, second"),
        ("phase.first=1", "write phase.NAME.key=value"),
        (
            "phase.first.model.hidden_size=64",
            "the same in every phase",
        ),
        ("phase.first.run.seed=1", "the same in every phase"),
        ("phase.first.optimizer.rate=1", "no setting optimizer.rate"),
        ("phase.first.optimizer.learning_rate=fast", "found the text"),
    ] {
        let message = set(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}

#[test]
fn mistakes_in_phases_are_named() {
    let cases = [
        (
            "optimizer.learning_rate = 1e-4",
            "optimizer.rate = 1",
            "x:12: there is no setting optimizer.rate",
        ),
        (
            "optimizer.learning_rate = 1e-4",
            "model.hidden_size = 64",
            "phase.second.model.hidden_size",
        ),
        ("name = 'second'", "name = 'a b'", "letters, digits"),
    ];
    for (from, to, expected) in cases {
        let message = Recipe::from_str(&PHASES.replace(from, to), "x")
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
    let cases = [
        (
            "total_tokens = 500_000",
            "total_tokens = 5",
            "phase second: run.total_tokens is 5",
        ),
        (
            "run.total_tokens = 1_000_000",
            "",
            "phase first: run.total_tokens is missing",
        ),
        (
            "name = 'second'",
            "name = 'first'",
            "two phases have this name",
        ),
        (
            "optimizer.learning_rate = 1e-4",
            "batch.warmup_tokens = 5",
            "phase second: batch.warmup_from is 1",
        ),
        (
            "optimizer.learning_rate = 1e-4",
            "checkpoint.keep_last = 0",
            "checkpoint.keep_last is 0",
        ),
    ];
    for (from, to, expected) in cases {
        let recipe = Recipe::from_str(&PHASES.replace(from, to), "x").unwrap();
        let message = recipe.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}
