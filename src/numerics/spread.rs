//! Places spread evenly over a range.

/// At most `most` of the places 0, 1, ..., `n` - 1, evenly spaced, ascending.
pub fn evenly_spaced(n: usize, most: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
    let chosen = n.min(most);
    (0..chosen).map(move |i| i * n / chosen)
}
