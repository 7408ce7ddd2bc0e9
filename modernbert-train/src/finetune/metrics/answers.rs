//! Exact match and F1 of answers, by the rules of SQuAD's evaluation.
//!
//! Both compare texts without case, ASCII punctuation, the articles *a*, *an* and *the*, and the kind of white space (Rajpurkar et al.
//! 2016, section 6.1). A question has the best score over its right answers. As in version 2 of the rules, right answers of which nothing
//! is left don't count, and a question without any is answered by an empty text alone.

use std::collections::HashMap;

/// 1 if the answer equals one of the right ones, else 0.
pub fn exact_match<S: AsRef<str>>(predicted: &str, right: &[S]) -> f64 {
    let predicted = words(predicted).join(" ");
    let score = |right: &[String]| f64::from(u8::from(right.join(" ") == predicted));
    best(right, score)
}

/// F1 of the answer's words and those of the right answer that it agrees best with.
pub fn answer_f1<S: AsRef<str>>(predicted: &str, right: &[S]) -> f64 {
    let predicted = words(predicted);
    best(right, |right| {
        if predicted.is_empty() || right.is_empty() {
            return f64::from(u8::from(predicted == right));
        }
        let mut left: HashMap<&str, usize> = HashMap::new();
        for word in right {
            *left.entry(word).or_default() += 1;
        }
        let mut common = 0;
        for word in &predicted {
            if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
                *count -= 1;
                common += 1;
            }
        }
        2.0 * f64::from(common) / (predicted.len() + right.len()) as f64
    })
}

/// The best score over the right answers of which something is left; over the empty answer where there is none.
fn best<S: AsRef<str>>(right: &[S], score: impl Fn(&[String]) -> f64) -> f64 {
    let right = right.iter().map(|right| words(right.as_ref()));
    let right: Vec<Vec<String>> = right.filter(|words| !words.is_empty()).collect();
    let scores = right.iter().map(|right| score(right));
    scores.reduce(f64::max).unwrap_or_else(|| score(&[]))
}

/// The words of a text as they are compared.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    // An article ends where letters and digits end, not only at white space.
    let mut without = String::new();
    let mut rest = kept.as_str();
    while !rest.is_empty() {
        let is_word = |c: char| c.is_alphanumeric();
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, later) = rest.split_at(end);
        match word {
            "a" | "an" | "the" => without.push(' '),
            word => without.push_str(word),
        }
        let end = later.find(is_word).unwrap_or(later.len());
        without.push_str(&later[..end]);
        rest = &later[end..];
    }
    without.split_whitespace().map(str::to_owned).collect()
}
