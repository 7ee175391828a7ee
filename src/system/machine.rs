//! The machine: its name, its processor, the memory that this process holds.

/// Name of the machine, where the system says.
pub fn host() -> Option<String> {
    line_of("/proc/sys/kernel/hostname", "")
}

/// The value of the first line of a system file that starts with `key`, after its colon.
pub fn line_of(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned())
}

/// Largest resident memory of this process so far, in bytes; `None` where the system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    parse_peak_rss(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_the_kernel() {
        assert_eq!(parse_peak_rss("VmPeak:\t  99 kB\nVmHWM:\t   1234 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_peak_rss("VmPeak:\t  99 kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
