//! What the program asks of the machine: its console, its signals, its memory.

pub mod console;
pub mod interruption;
pub(crate) mod memory;
