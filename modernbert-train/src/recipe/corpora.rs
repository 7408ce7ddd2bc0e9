//! Lists of texts that would be read twice.

use std::path::{Path, PathBuf};

use modernbert::output::overlap;

use super::{CorpusSource, Recipe, RecipeError};

impl Recipe {
    /// Refuses a list of texts of which two entries have a file in common, by any names: its documents would be read twice. A new run is checked;
    /// runs of earlier versions, in which such documents count once, can be resumed.
    ///
    /// # Errors
    /// The first two such entries.
    pub fn check_corpora(&self) -> Result<(), RecipeError> {
        let several = !self.phase.is_empty();
        for phase in self.phases()? {
            let data = &phase.recipe.data;
            for (key, corpus) in [
                ("data.corpus", Some(&data.corpus)),
                ("data.eval_corpus", data.eval_corpus.as_ref()),
            ] {
                let Some(CorpusSource::Paths(paths)) = corpus else {
                    continue;
                };
                check(key, paths).map_err(|error| match several {
                    true => RecipeError::Phase {
                        name: phase.name.clone(),
                        source: Box::new(error),
                    },
                    false => error,
                })?;
            }
        }
        Ok(())
    }
}

fn check(key: &'static str, paths: &[PathBuf]) -> Result<(), RecipeError> {
    let Some((first, second)) = overlap(paths) else {
        return Ok(());
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let (a, b) = (real(&paths[first]), real(&paths[second]));
    let relation = match (b.starts_with(&a), a.starts_with(&b)) {
        (true, false) => "inside of",
        (false, true) => "a folder around",
        _ => "the same as",
    };
    Err(RecipeError::Twice {
        key,
        first: paths[first].as_path().into(),
        second: paths[second].as_path().into(),
        entries: (first, second),
        relation,
        first_place: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail loudly

    use super::*;
    use crate::recipe::RecipeText;

    fn message(folder: &Path, text: &str) -> Option<String> {
        let path = folder.join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let (recipe, text) = Recipe::from_file_with_text(&path, &[]).unwrap();
        let located = |error| text.locate(error).to_string();
        recipe.check_corpora().map_err(located).err()
    }

    #[test]
    fn two_names_of_one_text_are_refused_with_both_lines() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        std::fs::create_dir(place.join("texts")).unwrap();
        for name in ["a.txt", "b.txt", "texts/c.txt"] {
            std::fs::write(place.join(name), name).unwrap();
        }
        let mut others = vec!["a.txt", "./a.txt", "texts/../a.txt"];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("a.txt", place.join("link.txt")).unwrap();
            others.push("link.txt");
        }
        std::fs::hard_link(place.join("a.txt"), place.join("hard.txt")).unwrap();
        others.push("hard.txt");
        for key in ["corpus", "eval_corpus"] {
            for other in &others {
                let text = format!("[data]\n{key} = [\n \"a.txt\",\n \"b.txt\",\n \"{other}\"]\n");
                let message = message(place, &text).unwrap();
                assert!(message.contains("recipe.toml:5: data."), "{message}");
                assert!(message.contains("is the same as"), "{message}");
                assert!(message.contains("recipe.toml:3)"), "{message}");
            }
        }
        let inside = message(place, "data.corpus = [\"texts\",\n\"texts/c.txt\"]").unwrap();
        assert!(inside.contains("c.txt is inside of"), "{inside}");
        assert!(
            inside.contains("recipe.toml:2: ") && inside.contains("recipe.toml:1)"),
            "{inside}"
        );
        let around = message(place, "data.corpus = [\"texts/c.txt\",\n\"texts\"]").unwrap();
        assert!(around.contains("is a folder around"), "{around}");
        let good = message(place, "data.corpus = [\"texts\", \"a.txt\", \"b.txt\"]");
        assert_eq!(good, None);
    }

    #[test]
    fn lists_of_phases_and_of_the_command_line_have_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let phases =
            "[[phase]]\nname = \"one\"\n[[phase]]\nname = \"two\"\ndata.corpus = [\"a\",\n\"a\"]\n";
        let message = message(folder.path(), phases).unwrap();
        assert!(
            message.contains("recipe.toml:6: phase two: data.corpus"),
            "{message}"
        );
        assert!(message.contains("recipe.toml:5)"), "{message}");
        let set = ["data.corpus=[\"a\", \"a\"]".to_owned()];
        let recipe = Recipe::from_str_with_overrides("", "x", &set).unwrap();
        let error = recipe.check_corpora().unwrap_err();
        let text = RecipeText::new("x", "").with_overrides(&set);
        let message = text.locate(error).to_string();
        assert!(message.starts_with("--set data.corpus="), "{message}");
    }
}
