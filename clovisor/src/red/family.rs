//! Series of one metric by what they are counted for, and no more of them than a limit.

use std::{collections::HashMap, hash::Hash};

/// Series by key.
#[derive(Clone, Debug)]
pub(super) struct Family<K, V> {
    series: HashMap<K, V>,
    /// Of all that found no room.
    other: V,
    limit: usize,
}

impl<K: Eq + Hash, V: Default> Family<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { series: HashMap::new(), other: V::default(), limit }
    }

    /// The series of a key.
    pub(super) fn of(&mut self, key: K) -> &mut V {
        if self.series.len() >= self.limit && !self.series.contains_key(&key) {
            return &mut self.other;
        }
        self.series.entry(key).or_default()
    }

    /// All series; that of those that found no room has no key.
    pub(super) fn all(&self) -> impl Iterator<Item = (Option<&K>, &V)> {
        let known = self.series.iter().map(|(key, value)| (Some(key), value));
        known.chain([(None, &self.other)])
    }
}
