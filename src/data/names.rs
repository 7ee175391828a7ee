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
        NamesIter { names: self, next: 0, end: self.len() }
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

/// An Ensembl identifier without its version, `ENSG00000141510` of `ENSG00000141510.17`; any other name as it is.
pub fn without_version(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((bare, version)) if bare.starts_with("ENS") && is_number(version) && bare.ends_with(is_digit) => bare,
        _ => name,
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_digit)
}

/// Names one after another.
#[derive(Debug, Clone)]
pub struct NamesIter<'a> {
    names: &'a Names,
    next: usize,
    end: usize,
}

impl<'a> Iterator for NamesIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        self.names.get(self.next - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl<'a> DoubleEndedIterator for NamesIter<'a> {
    fn next_back(&mut self) -> Option<&'a str> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        self.names.get(self.end)
    }
}

impl ExactSizeIterator for NamesIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_identifiers() {
        assert_eq!(without_version("ENSG00000141510.17"), "ENSG00000141510");
        assert_eq!(without_version("ENSMUSG00000059552.1"), "ENSMUSG00000059552");
        for name in ["ENSG00000141510", "RP11-34P13.7", "ENSG.1", "ENSG00000141510.", "AC1.2"] {
            assert_eq!(without_version(name), name);
        }
    }

    #[test]
    fn names_come_back_in_order_whatever_they_are() {
        let texts = ["AAAC-1", "", "zellkern_\u{e4}", "", "x"];
        let names: Names = texts.into_iter().collect();
        assert_eq!(names.iter().collect::<Vec<_>>(), texts);
        assert!(names.iter().rev().eq(texts.into_iter().rev()));
        assert_eq!((names.len(), names.iter().len(), names.is_empty()), (5, 5, false));
        assert_eq!((&names[0], &names[2], names.get(5)), (texts[0], texts[2], None));
        assert_eq!(names.select(&[4, 1, 0]).iter().collect::<Vec<_>>(), ["x", "", "AAAC-1"]);
        assert_eq!(format!("{:?}", names.select(&[0, 1])), r#"["AAAC-1", ""]"#);
        assert_ne!(names, names.select(&[0, 1, 2, 4, 3]));
        assert!(Names::default().is_empty());
    }
}
