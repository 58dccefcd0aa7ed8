//! Settings that are as they come in nearly every resource: a pointer where they are not, and one
//! value for all resources that have them alike.
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A type with a value that nearly every resource has.
pub trait Usual: Clone + 'static {
    /// That value.
    fn usual() -> &'static Self;

    /// Whether this is it.
    fn is_usual(&self) -> bool;
}

impl<T: Clone + 'static> Usual for Vec<T> {
    fn usual() -> &'static Self {
        const { &Vec::new() }
    }

    fn is_usual(&self) -> bool {
        self.is_empty()
    }
}

/// Reads as a `T`; takes no more than a pointer while it is the usual one. Writing to it makes a
/// copy of its own.
pub struct Rare<T>(Option<Arc<T>>);

impl<T: Usual + PartialEq> Rare<T> {
    /// The value; one that is equal to `last` shares its memory, and is `last` from now on.
    pub fn shared(value: T, last: &mut Self) -> Self {
        let value = Self::from(value);
        if value.0 != last.0 {
            *last = value;
        }
        last.clone()
    }
}

impl<T> Rare<T> {
    /// The value where it is not the usual one.
    pub fn own(&self) -> Option<&T> {
        self.0.as_deref()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Clone for Rare<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Usual> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((!value.is_usual()).then(|| Arc::new(value)))
    }
}

impl<T: Usual> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(own) => own,
            None => T::usual(),
        }
    }
}

impl<T: Usual> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(T::usual().clone())))
    }
}

impl<T: Usual + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Usual + PartialEq> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Clone + 'static> FromIterator<T> for Rare<Vec<T>> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::from(Vec::from_iter(items))
    }
}

impl<'a, T: Clone + 'static> IntoIterator for &'a Rare<Vec<T>> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_takes_nothing_and_what_is_alike_is_shared() {
        assert_eq!(size_of::<Rare<Vec<u8>>>(), size_of::<usize>());
        let mut last = Rare::default();
        let none = Rare::shared(Vec::<u8>::new(), &mut last);
        assert!(none.0.is_none() && none.is_empty());
        let one = Rare::shared(vec![1], &mut last);
        let mut same = Rare::shared(vec![1], &mut last);
        let (a, b) = (one.0.as_ref().unwrap(), same.0.as_ref().unwrap());
        assert!(Arc::ptr_eq(a, b));
        same.push(2);
        assert_eq!((&one[..], &same[..]), (&[1][..], &[1, 2][..]));
        assert_eq!(Rare::shared(vec![3], &mut last)[..], [3]);
        let mut none = none;
        none.push(4);
        assert_eq!(none, Rare::from(vec![4]));
    }
}
