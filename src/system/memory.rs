//! How freed memory is given back.

/// Makes large arrays that are freed go back to the system at once, where the allocator is GNU's. By default it keeps
/// ever larger ones for later use, in pieces that seldom fit what is asked for next: a streamed run, which holds such arrays
/// one after another, would take half as much again.
///
/// No result depends on it.
pub(crate) fn give_back_large_arrays() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // From malloc.h.
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        // SAFETY: the function of the C library with its own signature; it sets two numbers under the allocator's lock,
        // and any value of them is correct.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, 1 << 20);
            mallopt(M_TRIM_THRESHOLD, 1 << 22);
        }
    }
}
