//! All tensors of a network in one flat buffer, with one table of names and shapes.
//!
//! Parameters, gradients and the moments of Adam are buffers of the same layout.

use crate::numerics::aligned::{Aligned, LINE};
use crate::numerics::real::Real;
use std::ops::{Index, IndexMut, Range};
use std::sync::Arc;

/// A tensor's place in a flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor(pub Range<usize>);

/// Name, shape (row-major) and place of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, as in the saved model.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Place in the flat buffer.
    pub range: Range<usize>,
    /// Whether the buffer holds the transpose of the matrix that name and shape stand for.
    pub transposed: bool,
}

impl Entry {
    /// Place, in the flat buffer, of the value at `i` in the row-major tensor of this shape.
    pub fn place(&self, i: usize) -> usize {
        if !self.transposed {
            return self.range.start + i;
        }
        let (rows, columns) = (self.shape[0], self.shape[1]);
        self.range.start + i % columns * rows + i / columns
    }
}

/// The table of tensors of a flat buffer, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    entries: Vec<Entry>,
    len: usize,
}

impl Layout {
    /// The tensors, in order of their places.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Length of the flat buffer, with the gaps between tensors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of a tensor of this layout.
    pub fn at(&self, tensor: &Tensor) -> &Entry {
        self.entries.iter().find(|entry| entry.range == tensor.0).expect("a tensor of this layout")
    }

    /// The tensor called `name`.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Makes a [`Layout`].
#[derive(Debug, Default)]
pub struct LayoutBuilder(Layout);

impl LayoutBuilder {
    /// Adds a tensor.
    pub fn add(&mut self, name: String, shape: &[usize]) -> Tensor {
        self.add_entry(name, shape, false)
    }

    /// Adds a matrix of this shape, of which the transpose is held.
    pub fn add_transposed(&mut self, name: String, shape: [usize; 2]) -> Tensor {
        self.add_entry(name, &shape, true)
    }

    fn add_entry(&mut self, name: String, shape: &[usize], transposed: bool) -> Tensor {
        // Every tensor starts at a cache line; what lies between two of them stays zero.
        let start = self.0.len.next_multiple_of(LINE / size_of::<f32>());
        let range = start..start + shape.iter().product::<usize>();
        self.0.len = range.end;
        self.0.entries.push(Entry { name, shape: shape.to_vec(), range: range.clone(), transposed });
        Tensor(range)
    }

    /// The finished table.
    pub fn finish(self) -> Arc<Layout> {
        Arc::new(self.0)
    }
}

/// A flat buffer of tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer<R> {
    /// Every value, in order of the table.
    pub values: Aligned<R>,
    /// Names and shapes.
    pub layout: Arc<Layout>,
}

impl<R: Real> Buffer<R> {
    /// Zeros.
    pub fn zeros(layout: &Arc<Layout>) -> Self {
        Self { values: Aligned::filled(layout.len(), R::ZERO), layout: layout.clone() }
    }

    /// Values of a tensor in the order of its shape.
    pub fn in_order<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = R> + 'a {
        (0..entry.range.len()).map(|i| self.values[entry.place(i)])
    }

    /// Sets a tensor to values in the order of its shape.
    pub fn set_in_order(&mut self, entry: &Entry, values: impl IntoIterator<Item = R>) {
        values.into_iter().take(entry.range.len()).enumerate().for_each(|(i, v)| self.values[entry.place(i)] = v);
    }

    /// Name of the first tensor that holds a value which is not finite.
    pub fn first_non_finite(&self) -> Option<&str> {
        let entry = |entry: &&Entry| self.values[entry.range.clone()].iter().any(|v| !v.is_finite());
        self.layout.entries().iter().find(entry).map(|entry| entry.name.as_str())
    }
}

impl<R> Index<&Tensor> for Buffer<R> {
    type Output = [R];

    fn index(&self, tensor: &Tensor) -> &[R] {
        &self.values[tensor.0.clone()]
    }
}

impl<R> IndexMut<&Tensor> for Buffer<R> {
    fn index_mut(&mut self, tensor: &Tensor) -> &mut [R] {
        &mut self.values[tensor.0.clone()]
    }
}

/// Two tensors of one buffer, both writable.
pub(crate) fn two_tensors<'a, R>(values: &'a mut [R], a: &Tensor, b: &Tensor) -> (&'a mut [R], &'a mut [R]) {
    values.get_disjoint_mut([a.0.clone(), b.0.clone()]).expect("tensors do not overlap").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_matrix_reads_and_writes_in_the_order_of_its_shape() {
        let mut layout = LayoutBuilder::default();
        layout.add("before".to_owned(), &[2]);
        let matrix = layout.add_transposed("matrix".to_owned(), [2, 3]);
        let mut buffer = Buffer::<f64>::zeros(&layout.finish());
        let entry = buffer.layout.at(&matrix).clone();
        buffer.set_in_order(&entry, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(buffer[&matrix], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(buffer[&matrix].as_ptr() as usize % LINE, 0);
        assert_eq!(buffer.values.iter().filter(|&&v| v != 0.0).count(), 6);
        assert!(buffer.in_order(&entry).eq([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }
}
