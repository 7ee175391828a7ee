//! Places spread evenly over a range.

/// The places of [`spread`] among `n` cells, ascending.
pub fn spread_places(n: usize, most: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
    let chosen = n.min(most);
    (0..chosen).map(move |i| i * n / chosen)
}
