//! Counts of cells x genes, in memory or on disk.

pub mod in_memory;
pub mod on_disk;
