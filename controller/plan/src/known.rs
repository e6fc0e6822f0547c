//! What is known of a kind of watched object.
//!
//! Owns "identity before content": an object whose content cannot be used exists, and keeps its last good content.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::fact::Change;

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object<T> {
    /// Its last good content; none if there never was one.
    pub(crate) good: Option<T>,
    /// What is wrong with its newest content.
    pub(crate) invalid: Option<String>,
}

/// Every object of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Known<K, T> {
    objects: BTreeMap<K, Object<T>>,
}

impl<K: Ord, T: PartialEq> Known<K, T> {
    pub(crate) fn new() -> Self {
        Self { objects: BTreeMap::new() }
    }

    /// Takes one change; says whether anything differs.
    pub(crate) fn change(&mut self, change: Change<K, T>) -> bool {
        match change {
            Change::Remove(key) => self.objects.remove(&key).is_some(),
            Change::Upsert(key, content) => self.upsert(key, content),
        }
    }

    fn upsert(&mut self, key: K, content: Result<T, String>) -> bool {
        let old = self.objects.remove(&key);
        let (new, changed) = match content {
            Ok(good) => {
                let new = Object { good: Some(good), invalid: None };
                let changed = old.as_ref() != Some(&new);
                (new, changed)
            }
            Err(text) => {
                let changed = old.as_ref().is_none_or(|o| o.invalid.as_ref() != Some(&text));
                (Object { good: old.and_then(|o| o.good), invalid: Some(text) }, changed)
            }
        };
        self.objects.insert(key, new);
        changed
    }

    /// Takes a full list of the part of the keys that `is_listed` names: what is not in it is gone. Gives the keys of
    /// which anything differs.
    pub(crate) fn replace(&mut self, list: BTreeMap<K, Result<T, String>>, is_listed: impl Fn(&K) -> bool) -> Vec<K>
    where
        K: Clone,
    {
        let mut changed = Vec::new();
        self.objects.retain(|key, _| {
            let stays = !is_listed(key) || list.contains_key(key);
            if !stays {
                changed.push(key.clone());
            }
            stays
        });
        for (key, content) in list {
            if self.upsert(key.clone(), content) {
                changed.push(key);
            }
        }
        changed
    }

    /// Whether there is such an object, whatever its content.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.objects.contains_key(key)
    }

    /// The last good content.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        self.objects.get(key)?.good.as_ref()
    }

    /// Every key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.objects.keys()
    }

    /// Every object with usable content.
    pub(crate) fn good(&self) -> impl Iterator<Item = (&K, &T)> {
        self.objects.iter().filter_map(|(key, object)| Some((key, object.good.as_ref()?)))
    }

    /// Every object with usable content, to be changed.
    pub(crate) fn good_mut(&mut self) -> impl Iterator<Item = (&K, &mut T)> {
        self.objects.iter_mut().filter_map(|(key, object)| Some((key, object.good.as_mut()?)))
    }

    /// Every object whose newest content is usable.
    pub(crate) fn valid(&self) -> impl Iterator<Item = (&K, &T)> {
        let valid = self.objects.iter().filter(|(_, object)| object.invalid.is_none());
        valid.filter_map(|(key, object)| Some((key, object.good.as_ref()?)))
    }

    /// Every object whose newest content cannot be used, with what is wrong.
    pub(crate) fn invalid(&self) -> impl Iterator<Item = (&K, &str)> {
        self.objects.iter().filter_map(|(key, object)| Some((key, object.invalid.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_object_keeps_its_last_good_content() {
        let mut known = Known::new();
        assert!(known.change(Change::Upsert("a", Ok(1))));
        assert!(!known.change(Change::Upsert("a", Ok(1))));
        assert!(known.change(Change::Upsert("a", Err("bad".to_owned()))));
        assert!(!known.change(Change::Upsert("a", Err("bad".to_owned()))));
        assert_eq!((known.get(&"a"), known.invalid().next()), (Some(&1), Some((&"a", "bad"))));
        assert!(known.change(Change::Upsert("a", Ok(1))));
        assert_eq!(known.invalid().next(), None);
        assert!(known.change(Change::Remove("a")));
        assert!(!known.change(Change::Remove("a")));
    }

    #[test]
    fn a_full_list_replaces_only_what_it_lists() {
        let mut known = Known::new();
        known.replace(BTreeMap::from([("a1", Ok(1)), ("b1", Ok(2))]), |_| true);
        assert_eq!(known.replace(BTreeMap::from([("a2", Ok(3))]), |k| k.starts_with('a')), ["a1", "a2"]);
        assert_eq!(known.keys().copied().collect::<Vec<_>>(), ["a2", "b1"]);
        assert!(known.replace(BTreeMap::from([("a2", Ok(3))]), |k| k.starts_with('a')).is_empty());
    }
}
