//! All tensors of a network in one flat buffer, with one table of names and shapes.
//!
//! Parameters, gradients and the moments of Adam are buffers of the same layout.

use crate::model::architecture::Tensors;
use crate::model::prior::mask;
use crate::numerics::aligned::{Aligned, LINE};
use crate::numerics::random::u32_to_unit_f64;
use crate::numerics::random::{Purpose, stream};
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

/// Starting values: linear layers from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), normalisation scales 1 and offsets 0,
/// log-dispersions and shifts from N(0, 1), mask logits at 5.
pub fn initialize<R: Real>(tensors: &Tensors, seed: u64) -> Buffer<R> {
    let mut parameters = Buffer::zeros(&tensors.parameters);
    let mut index = 0;
    let mut next_stream = || {
        index += 1;
        stream(seed, Purpose::Initialization, 0, index)
    };
    for linear in tensors.linear_layers() {
        let bound = 1.0 / ((linear.n_in + linear.n_covariates) as f64).sqrt();
        for tensor in [&linear.weight, &linear.bias] {
            let mut random = next_stream();
            let entry = tensors.parameters.at(tensor).clone();
            let mut draw = || R::of(bound * (2.0 * u32_to_unit_f64(random.next_u32()) - 1.0));
            parameters.set_in_order(&entry, std::iter::repeat_with(&mut draw));
        }
    }
    for norm in tensors.encoder.iter().chain(&tensors.decoder).filter_map(|layer| layer.norm.as_ref()) {
        parameters[&norm.weight].fill(R::ONE);
    }
    for tensor in [tensors.log_dispersion.as_ref(), tensors.shift.as_ref()].into_iter().flatten() {
        let mut words = vec![0; tensor.0.len() + 1];
        crate::numerics::random::fill_normal(&mut parameters[tensor], &mut words, &mut next_stream());
    }
    if let Some(mask_logit) = &tensors.mask_logit {
        parameters[mask_logit].fill(R::of(mask::INITIAL));
    }
    parameters
}

/// Starting values of the running statistics: mean 0, variance 1.
pub fn initialize_running<R: Real>(tensors: &Tensors) -> Buffer<R> {
    let mut running = Buffer::zeros(&tensors.running);
    for norm in tensors.encoder.iter().chain(&tensors.decoder).filter_map(|layer| layer.norm.as_ref()) {
        running[&norm.running_variance].fill(R::ONE);
    }
    running
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
