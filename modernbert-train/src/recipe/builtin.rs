//! The recipes of `recipes/`, which travel in the program.

use super::{Recipe, RecipeError};

const ALL: [(&str, &str); 5] = [
    ("demo", include_str!("../../recipes/demo.toml")),
    ("cpu-tiny", include_str!("../../recipes/cpu-tiny.toml")),
    ("h100-15min", include_str!("../../recipes/h100-15min.toml")),
    ("base", include_str!("../../recipes/base.toml")),
    ("large", include_str!("../../recipes/large.toml")),
];

/// The recipe of this name among those that travel in the program, such as `cpu-tiny`; `None` if there is none.
///
/// # Errors
/// Those of [`Recipe::from_str`], which for these files a test rules out.
pub fn builtin(name: &str) -> Option<Result<Recipe, RecipeError>> {
    let name = name.strip_suffix(".toml").unwrap_or(name);
    let (_, text) = ALL.iter().find(|(known, _)| *known == name)?;
    Some(Recipe::from_str(text, &format!("recipes/{name}.toml")))
}

/// Names that [`builtin`] knows.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}
