//! Names as numbers, so that a series is found without copying a name.

use std::{collections::HashMap, sync::Arc};

/// A name that was given a number.
pub(super) type Id = u32;

/// The longest name of a Kubernetes object. Annotations may name services at greater length.
const LENGTH: usize = 253;

/// The names there are; none is forgotten.
#[derive(Clone, Debug)]
pub(super) struct Names {
    ids: HashMap<Arc<str>, Id>,
    names: Vec<Arc<str>>,
    limit: usize,
}

impl Names {
    /// No more than `limit` names, the first of which is that of all others.
    pub(super) fn new(limit: usize, other: &str) -> Self {
        let mut names = Self { ids: HashMap::new(), names: Vec::new(), limit };
        names.id(other);
        names
    }

    /// The number of a name; that of the first one where there is no room.
    pub(super) fn id(&mut self, name: &str) -> Id {
        let end = (0..=name.len().min(LENGTH)).rev().find(|end| name.is_char_boundary(*end));
        let name = &name[..end.unwrap_or_default()];
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        if self.names.len() >= self.limit.max(1) {
            return 0;
        }
        let (id, name) = (self.names.len() as Id, Arc::<str>::from(name));
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        id
    }

    /// The name of a number that was given out.
    pub(super) fn name(&self, id: Id) -> &str {
        self.names.get(id as usize).map_or("", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let mut names = Names::new(3, "other");
        let long = "ä".repeat(200);
        let (shop, cut) = (names.id("shop"), names.id(&long));
        assert_eq!((names.name(shop), names.name(cut)), ("shop", &long[..252]));
        assert_eq!((names.id("shop"), names.id(&long)), (shop, cut));
        let more = names.id("one more");
        assert_eq!(names.name(more), "other");
    }
}
