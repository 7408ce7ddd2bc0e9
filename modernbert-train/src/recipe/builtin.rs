//! The recipes of `recipes/`, which are built into the program.

use super::{Recipe, RecipeError, RecipeText};
use std::path::Path;

const ALL: [(&str, &str); 7] = [
    ("17m", include_str!("../../recipes/17m.toml")),
    ("demo", include_str!("../../recipes/demo.toml")),
    ("cpu-tiny", include_str!("../../recipes/cpu-tiny.toml")),
    ("continue", include_str!("../../recipes/continue.toml")),
    ("h100-15min", include_str!("../../recipes/h100-15min.toml")),
    ("base", include_str!("../../recipes/base.toml")),
    ("large", include_str!("../../recipes/large.toml")),
];

/// The built-in recipe of this name, such as `cpu-tiny`; `None` if there is none.
///
/// # Errors
/// Those of [`Recipe::from_str`]; a test shows that these files have none.
pub fn builtin(name: &str) -> Option<Result<Recipe, RecipeError>> {
    let name = name.strip_suffix(".toml").unwrap_or(name);
    let (_, text) = ALL.iter().find(|(known, _)| *known == name)?;
    Some(Recipe::from_str(text, &format!("recipes/{name}.toml")))
}

/// The text of a built-in recipe, for the line numbers of messages.
pub fn builtin_text(name: &str) -> Option<RecipeText> {
    let name = name.strip_suffix(".toml").unwrap_or(name);
    let (_, text) = ALL.iter().find(|(known, _)| *known == name)?;
    Some(RecipeText::new(format!("recipes/{name}.toml"), *text))
}

/// Names of the built-in recipes.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// Reads the built-in recipe of a name, or the recipe file at a path, with its text for the line numbers of later errors. References follow
/// `overrides`, which are not applied yet.
///
/// # Errors
/// Those of [`Recipe::from_file_with_text`].
pub fn builtin_or_file(
    path: &Path,
    overrides: &[String],
) -> Result<(Recipe, RecipeText), RecipeError> {
    let name = path.to_str().filter(|_| !path.is_file());
    match name.and_then(|name| Some((builtin(name)?, builtin_text(name)?))) {
        Some((recipe, text)) => Ok((recipe?, text)),
        None => Recipe::from_file_with_text(path, overrides),
    }
}
