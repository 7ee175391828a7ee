//! Who works together: the threads of a process and the processes of a job.

pub mod ranks;
pub mod team;
