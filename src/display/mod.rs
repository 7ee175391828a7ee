//! What a person sees on a terminal: tables and progress.

pub mod progress;
pub mod table;
