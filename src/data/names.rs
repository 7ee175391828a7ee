//! Names of many cells in few bytes: one text, and where each name ends in it.

use std::ops::Index;

/// A list of names that costs little more than their text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names {
    text: String,
    /// Where each name ends in the text.
    ends: Vec<u32>,
}

impl Names {
    /// Appends a name.
    ///
    /// # Panics
    /// If all names together are longer than 4 GiB.
    pub fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(u32::try_from(self.text.len()).expect("all names together are shorter than 4 GiB"));
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The name of number `n`, if there are so many.
    pub fn get(&self, n: usize) -> Option<&str> {
        let end = *self.ends.get(n)? as usize;
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.text[start..end])
    }

    /// The names in their order.
    pub fn iter(&self) -> NamesIter<'_> {
        NamesIter { names: self, next: 0 }
    }

    /// Those of `numbers`, in that order.
    pub fn select(&self, numbers: &[usize]) -> Self {
        numbers.iter().map(|&n| &self[n]).collect()
    }

    /// Gives back what was reserved for further names.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl Index<usize> for Names {
    type Output = str;

    fn index(&self, n: usize) -> &str {
        self.get(n).unwrap_or_else(|| panic!("there are {} names, none has number {n}", self.len()))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.push(name.as_ref()));
        all.shrink();
        all
    }
}

impl From<Vec<String>> for Names {
    fn from(names: Vec<String>) -> Self {
        names.into_iter().collect()
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a Names {
    type Item = &'a str;
    type IntoIter = NamesIter<'a>;

    fn into_iter(self) -> NamesIter<'a> {
        self.iter()
    }
}

/// Names one after another.
#[derive(Debug, Clone)]
pub struct NamesIter<'a> {
    names: &'a Names,
    next: usize,
}

impl<'a> Iterator for NamesIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let name = self.names.get(self.next)?;
        self.next += 1;
        Some(name)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.names.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for NamesIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_in_order_whatever_they_are() {
        let texts = ["AAAC-1", "", "zellkern_\u{e4}", "", "x"];
        let names: Names = texts.into_iter().collect();
        assert_eq!(names.iter().collect::<Vec<_>>(), texts);
        assert_eq!((names.len(), names.iter().len(), names.is_empty()), (5, 5, false));
        assert_eq!((&names[0], &names[2], names.get(5)), (texts[0], texts[2], None));
        assert_eq!(names.select(&[4, 1, 0]).iter().collect::<Vec<_>>(), ["x", "", "AAAC-1"]);
        assert_eq!(format!("{:?}", names.select(&[0, 1])), r#"["AAAC-1", ""]"#);
        assert_ne!(names, names.select(&[0, 1, 2, 4, 3]));
        assert!(Names::default().is_empty());
    }
}
