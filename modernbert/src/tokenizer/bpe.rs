//! Learning byte-pair merges (Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>).
//!
//! The most frequent pair of neighbouring tokens becomes a new token, again and again. The trainer of the tokenizers
//! library can order equal candidates differently from run to run (its hash maps are seeded at random); here nothing
//! depends on the order of a map, so the same words always give the same merges.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

type Pair = (u32, u32);

/// What was learned.
pub(super) struct Learned {
    /// The tokens, in id order: the alphabet first, then one for each merge that made a new one.
    pub(super) vocab: Vec<String>,
    /// Merges, the most frequent first, as pairs of ids.
    pub(super) merges: Vec<Pair>,
}

/// Learns merges from `words` (each with how often it occurs) until there are `vocab_size` tokens or the best pair
/// occurs fewer than `min_frequency` times. Characters that are not in `alphabet` are left out.
pub(super) fn learn(
    words: &[(String, u64)],
    alphabet: &[char],
    vocab_size: usize,
    min_frequency: u64,
) -> Learned {
    let mut vocab: Vec<String> = alphabet.iter().map(char::to_string).collect();
    let mut ids: HashMap<String, u32> = vocab.iter().cloned().zip(0..).collect();
    let letters: HashMap<char, u32> = alphabet.iter().copied().zip(0..).collect();
    let mut words: Vec<(Vec<u32>, i64)> = words
        .iter()
        .map(|(word, count)| {
            (
                word.chars()
                    .filter_map(|c| letters.get(&c).copied())
                    .collect(),
                *count as i64,
            )
        })
        .collect();

    let mut counts: HashMap<Pair, i64> = HashMap::new();
    // Words in which a pair has been seen; a word may since have lost it.
    let mut places: HashMap<Pair, Vec<usize>> = HashMap::new();
    for (index, (word, count)) in words.iter().enumerate() {
        for pair in pairs(word) {
            *counts.entry(pair).or_default() += count;
            note(places.entry(pair).or_default(), index);
        }
    }
    // The lower pair of ids wins between equally frequent ones.
    let mut queue: BinaryHeap<(i64, Reverse<Pair>)> = counts
        .iter()
        .map(|(pair, count)| (*count, Reverse(*pair)))
        .collect();

    let least = min_frequency.clamp(1, i64::MAX as u64) as i64;
    let mut merges = Vec::new();
    let mut merged = HashSet::new();
    while vocab.len() < vocab_size {
        let Some((count, Reverse(pair))) = queue.pop() else {
            break;
        };
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            // Merges since then have taken occurrences away: queue it again where it belongs now.
            if now > 0 && now < count {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < least {
            break;
        }
        let text = format!("{}{}", vocab[pair.0 as usize], vocab[pair.1 as usize]);
        // Two merges may spell the same text ("ab"+"c", "a"+"bc"): they share one token.
        let id = *ids.entry(text.clone()).or_insert_with(|| {
            vocab.push(text);
            vocab.len() as u32 - 1
        });
        if merged.insert(pair) {
            merges.push(pair);
        }

        let mut changed = HashSet::new();
        for index in places.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut words[index];
            let Some(next) = merge(word, pair, id) else {
                continue;
            };
            for old in pairs(word) {
                *counts.entry(old).or_default() -= *count;
            }
            *word = next;
            for new in pairs(word) {
                *counts.entry(new).or_default() += *count;
                if new.0 == id || new.1 == id {
                    note(places.entry(new).or_default(), index);
                    changed.insert(new);
                }
            }
        }
        queue.extend(
            changed
                .into_iter()
                .map(|pair| (counts[&pair], Reverse(pair))),
        );
    }
    Learned { vocab, merges }
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.windows(2).map(|window| (window[0], window[1]))
}

/// Notes a word once, as long as words come one after another.
fn note(places: &mut Vec<usize>, index: usize) {
    if places.last() != Some(&index) {
        places.push(index);
    }
}

/// `word` with every occurrence of `pair` replaced, from the left; `None` if there is none.
fn merge(word: &[u32], pair: Pair, id: u32) -> Option<Vec<u32>> {
    pairs(word).find(|&candidate| candidate == pair)?;
    let mut merged = Vec::with_capacity(word.len() - 1);
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        match tail {
            [second, after @ ..] if (*first, *second) == pair => {
                merged.push(id);
                rest = after;
            }
            _ => {
                merged.push(*first);
                rest = tail;
            }
        }
    }
    Some(merged)
}
