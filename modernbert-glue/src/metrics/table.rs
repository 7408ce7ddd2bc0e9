//! A short ordered list of named scores.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sample::{mean, variance};

/// Named scores in a fixed order, the main one first. Written to JSON as one object, undefined scores as `null`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    values: Vec<(String, Option<f64>)>,
}

impl Metrics {
    /// Adds a score, or replaces the one of that name; one that is not finite is undefined.
    pub fn push(&mut self, name: impl Into<String>, value: Option<f64>) {
        let (name, value) = (name.into(), value.filter(|value| value.is_finite()));
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.values.push((name, value)),
        }
    }

    /// The score of that name, if it exists and is defined.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values
            .iter()
            .find(|(known, _)| known == name)
            .and_then(|(_, value)| *value)
    }

    /// The scores in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<f64>)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
    }

    /// Returns true if there is no score at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The mean of each score over several runs, in the order of the first run.
    ///
    /// A score that is undefined or absent in any run is undefined in the mean: leaving the run out would hide it.
    pub fn mean<'a>(runs: impl IntoIterator<Item = &'a Metrics>) -> Self {
        let runs: Vec<&Metrics> = runs.into_iter().collect();
        let Some(first) = runs.first() else {
            return Self::default();
        };
        let of = |name: &str| values(&runs, name).map(|values| mean(&values));
        first.iter().map(|(name, _)| (name, of(name))).collect()
    }

    /// The standard deviation of each score over several runs (n - 1), in the order of the first run; undefined for a single
    /// run, and where the mean is.
    pub fn spread<'a>(runs: impl IntoIterator<Item = &'a Metrics>) -> Self {
        let runs: Vec<&Metrics> = runs.into_iter().collect();
        let Some(first) = runs.first() else {
            return Self::default();
        };
        let of = |name: &str| Some(variance(&values(&runs, name)?)?.sqrt());
        first.iter().map(|(name, _)| (name, of(name))).collect()
    }
}

/// A score of each run; `None` if it is undefined in one of them.
fn values(runs: &[&Metrics], name: &str) -> Option<Vec<f64>> {
    runs.iter().map(|run| run.get(name)).collect()
}

impl<S: Into<String>> FromIterator<(S, Option<f64>)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (S, Option<f64>)>>(values: I) -> Self {
        let mut metrics = Self::default();
        for (name, value) in values {
            metrics.push(name, value);
        }
        metrics
    }
}

impl fmt::Display for Metrics {
    /// `accuracy 91.2, f1 88.0`: times 100, undefined as `n/a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match value {
                Some(value) => write!(f, "{comma}{name} {:.1}", 100.0 * value)?,
                None => write!(f, "{comma}{name} n/a")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of scores, each a number or null")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Metrics::default();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    metrics.push(name, value);
                }
                Ok(metrics)
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
