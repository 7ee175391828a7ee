//! Slices that start at a cache line, so that the widest vectors never straddle two of them.

use std::fmt::{Debug, Formatter};
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vectors.
pub const LINE: usize = 64;

/// A slice of fixed length whose first value starts a cache line.
///
/// The system's allocator aligns to 16 bytes, and large blocks always to 16 bytes past a line: every vector of 64 bytes
/// would then be read and written in two parts.
pub struct Aligned<T> {
    /// The slice, with room before it; never grows, so that it stays where it is.
    room: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Clone> Aligned<T> {
    /// `len` times `value`.
    pub fn filled(len: usize, value: T) -> Self {
        let room = vec![value; len + LINE / size_of::<T>().clamp(1, LINE)];
        let start = room.as_ptr().align_offset(LINE).min(room.len() - len);
        Self { room, start, len }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.room[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.room[self.start..self.start + self.len]
    }
}

impl<'a, T> IntoIterator for &'a Aligned<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Clone> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let Some(first) = values.first() else { return Self::default() };
        let mut aligned = Self::filled(values.len(), first.clone());
        aligned.clone_from_slice(values);
        aligned
    }
}

impl<T: Clone> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { room: Vec::new(), start: 0, len: 0 }
    }
}

impl<T: PartialEq> PartialEq for Aligned<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Debug> Debug for Aligned<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_start_at_a_line_and_keep_their_values_when_copied() {
        fn check<T: Clone + PartialEq + Debug + From<u8>>() {
            for len in [0, 1, 15, 16, 17, 1000, 100_000] {
                let mut values = Aligned::filled(len, T::from(7));
                if let Some(last) = values.last_mut() {
                    *last = T::from(9);
                }
                let copy = values.clone();
                for slice in [&values, &copy] {
                    assert_eq!(slice.len(), len);
                    assert!(len == 0 || (slice.as_ptr() as usize).is_multiple_of(LINE));
                    assert!(slice.iter().rev().skip(1).all(|v| *v == T::from(7)));
                }
                assert_eq!(values, copy);
            }
        }
        check::<f32>();
        check::<f64>();
        assert!(Aligned::<f32>::default().is_empty());
    }
}
