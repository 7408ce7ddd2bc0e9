//! Porter's stemmer (M. F. Porter, An algorithm for suffix stripping, Program 14(3), 1980), with the two departures of its author's own
//! program, which Lucene shares: `abli` becomes `able` by the rule for `bli`, and `logi` becomes `log`.

/// Returns the stem of a lower-case word. Characters other than a, e, i, o, u and y count as consonants; words of one or two characters
/// stay as they are.
pub fn stem(word: &str) -> String {
    let mut word = Word(word.chars().collect());
    if word.0.len() < 3 {
        return word.0.into_iter().collect();
    }
    word.plurals();
    word.past_tense();
    if word.ends("y") && word.has_vowel(word.0.len() - 1) {
        word.replace(1, "i");
    }
    word.rules(&STEP_2, 1);
    word.rules(&STEP_3, 1);
    word.derivations();
    word.final_e();
    word.0.into_iter().collect()
}

/// The first ending that fits decides; longer endings come before those they contain.
type Rules = [(&'static str, &'static str)];

const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: [&str; 18] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

struct Word(Vec<char>);

impl Word {
    fn ends(&self, ending: &str) -> bool {
        let ending = ending.chars().rev();
        let mut letters = self.0.iter().rev();
        ending
            .into_iter()
            .all(|letter| letters.next() == Some(&letter))
    }

    fn replace(&mut self, cut: usize, with: &str) {
        let kept = self.0.len() - cut;
        self.0.truncate(kept);
        self.0.extend(with.chars());
    }

    fn is_consonant(&self, i: usize) -> bool {
        match self.0[i] {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => i == 0 || !self.is_consonant(i - 1),
            _ => true,
        }
    }

    /// Porter's m: the number of times a vowel is followed by a consonant in the first `length` letters.
    fn measure(&self, length: usize) -> usize {
        let starts = |i: &usize| *i > 0 && self.is_consonant(*i) && !self.is_consonant(*i - 1);
        (0..length).filter(starts).count()
    }

    fn has_vowel(&self, length: usize) -> bool {
        (0..length).any(|i| !self.is_consonant(i))
    }

    fn has_double_consonant(&self) -> bool {
        let last = self.0.len() - 1;
        last >= 1 && self.0[last] == self.0[last - 1] && self.is_consonant(last)
    }

    /// Returns true if the first `length` letters end in consonant, vowel, consonant other than w, x and y.
    fn ends_short(&self, length: usize) -> bool {
        length >= 3
            && self.is_consonant(length - 3)
            && !self.is_consonant(length - 2)
            && self.is_consonant(length - 1)
            && !matches!(self.0[length - 1], 'w' | 'x' | 'y')
    }

    fn plurals(&mut self) {
        if self.ends("sses") || self.ends("ies") {
            self.replace(2, "");
        } else if self.ends("s") && !self.ends("ss") {
            self.replace(1, "");
        }
    }

    fn past_tense(&mut self) {
        let length = self.0.len();
        if self.ends("eed") {
            if self.measure(length - 3) > 0 {
                self.replace(1, "");
            }
            return;
        }
        let cut = if self.ends("ed") && self.has_vowel(length - 2) {
            2
        } else if self.ends("ing") && self.has_vowel(length - 3) {
            3
        } else {
            return;
        };
        self.replace(cut, "");
        if self.ends("at") || self.ends("bl") || self.ends("iz") {
            self.replace(0, "e");
        } else if self.has_double_consonant() {
            if !matches!(self.0.last(), Some('l' | 's' | 'z')) {
                self.replace(1, "");
            }
        } else if self.measure(self.0.len()) == 1 && self.ends_short(self.0.len()) {
            self.replace(0, "e");
        }
    }

    /// Replaces the first ending that fits, if the measure before it is above `over - 1`.
    fn rules(&mut self, rules: &Rules, over: usize) {
        let Some((ending, with)) = rules.iter().find(|(ending, _)| self.ends(ending)) else {
            return;
        };
        if self.measure(self.0.len() - ending.len()) >= over {
            self.replace(ending.len(), with);
        }
    }

    fn derivations(&mut self) {
        let length = self.0.len();
        let ending = if self.ends("ion") {
            let before = length.checked_sub(4).map(|i| self.0[i]);
            matches!(before, Some('s' | 't')).then_some(3)
        } else {
            STEP_4
                .iter()
                .find(|ending| self.ends(ending))
                .map(|ending| ending.len())
        };
        if let Some(ending) = ending.filter(|ending| self.measure(length - ending) > 1) {
            self.replace(ending, "");
        }
    }

    fn final_e(&mut self) {
        let length = self.0.len();
        if self.ends("e") {
            let measure = self.measure(length - 1);
            if measure > 1 || (measure == 1 && !self.ends_short(length - 1)) {
                self.replace(1, "");
            }
        }
        if self.ends("ll") && self.measure(self.0.len()) > 1 {
            self.replace(1, "");
        }
    }
}
