//! What the program asks of the machine: its console, its signals, its memory.

pub mod console;
pub mod files;
pub mod interruption;
pub mod machine;
pub(crate) mod memory;
pub mod safetensors;
