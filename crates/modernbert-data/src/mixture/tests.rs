#![allow(clippy::unwrap_used)]

use super::*;

fn parse(text: &str) -> Result<Mixture, MixtureError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixture.toml");
    std::fs::write(&path, text).unwrap();
    Mixture::from_file(&path)
}

fn source(name: &str, proportion: f64, more: &str) -> String {
    format!(
        "[[source]]\nname = {name:?}\npaths = [\"texts of {name}\"]\nproportion = {proportion:?}\nlicence = \"CC0\"\n{more}\n"
    )
}

#[test]
fn a_file_is_read_as_it_stands() {
    let text = source("web", 0.7, "text_field = \"content\"") + &source("code", 0.3, "");
    let mixture = parse(&text).unwrap();
    let [web, code] = &mixture.sources[..] else {
        panic!("two sources")
    };
    assert_eq!((web.name.as_str(), web.proportion), ("web", 0.7));
    assert_eq!(
        (web.text_field.as_str(), code.text_field.as_str()),
        ("content", "text")
    );
    assert!(web.paths[0].ends_with("texts of web") && web.paths[0].parent().is_some());
}

#[test]
fn mistakes_name_the_source_and_the_remedy() {
    let says = |text: &str, words: &str| {
        let message = parse(text).unwrap_err().to_string();
        assert!(
            message.contains("mixture.toml") && message.contains(words),
            "{message}"
        );
    };
    says("", "lists no [[source]]");
    says(&source("web", 0.5, ""), "add up to 0.5");
    says(
        &(source("web", 0.5, "") + &source("web", 0.5, "")),
        "another source has this name",
    );
    let shared = |path: &str, field: &str| {
        format!(
            "{}[[source]]\nname = \"more\"\npaths = [{path:?}]\nproportion = 0.5\nlicence = \"CC0\"\n{field}\n",
            source("web", 0.5, "")
        )
    };
    for path in ["texts of web", "./texts of web", "texts of web/inner"] {
        says(&shared(path, ""), "by source \"web\" as well");
    }
    parse(&shared("texts of web", "text_field = \"title\"")).unwrap();
    says(&source("../up", 1.0, ""), "letters, digits");
    says(&source("web", 0.0, ""), "proportion is not above 0");
    says(&source("web", 1.0, "weight = 2"), "weight");
    says(
        "[[source]]\nname = \"a\"\npaths = [\"a\"]\nproportion = 1.0\n",
        "licence",
    );
    says(
        "[[source]]\nname = \"a\"\npaths = []\nproportion = 1.0\nlicence = \"x\"",
        "no paths",
    );
    says(
        "[[source]]\nname = \"a\"\npaths = [\"a\"]\nproportion = 1.0\nlicence = \" \"",
        "licence is empty",
    );
    says(
        "[[source]]\nname = \"a\"\npaths = [\"a\"]\nproportion = 1.0\nlicence = \"x\\u001b[31m\"",
        "control characters",
    );
    says("[[source]\n", "mixture.toml");
}
