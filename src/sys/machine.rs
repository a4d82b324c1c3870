//! The machine: its name, memory and disks.

use std::path::Path;

/// Name of this machine.
pub fn host_name() -> String {
    let read = |path| std::fs::read_to_string(path).ok().map(|text: String| text.trim().to_owned());
    read("/proc/sys/kernel/hostname")
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// A figure in kilobytes from a file under `/proc`, in bytes.
fn proc_kilobytes(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// The memory that this process holds, in bytes; 0 where the system does not say.
pub(super) fn rss_bytes() -> u64 {
    proc_kilobytes("/proc/self/status", "VmRSS").unwrap_or(0)
}

/// The most memory that another process has held so far, in bytes; `None` where the system does not say.
pub(super) fn peak_rss_bytes_of(pid: u32) -> Option<u64> {
    proc_kilobytes(&format!("/proc/{pid}/status"), "VmHWM")
}

/// The most memory that this process has held since [`reset_peak_rss`], in bytes; 0 where the system does not
/// say.
pub fn peak_rss_bytes() -> u64 {
    proc_kilobytes("/proc/self/status", "VmHWM").unwrap_or(0)
}

/// Starts counting the peak anew, where the system can do that.
pub fn reset_peak_rss() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Memory of the machine: total and available, in bytes.
pub fn memory_bytes() -> Option<(u64, u64)> {
    Some((proc_kilobytes("/proc/meminfo", "MemTotal")?, proc_kilobytes("/proc/meminfo", "MemAvailable")?))
}

/// What is left of a control group's limit, if it has one. Pages of files count as used but are given back on demand.
fn group_rest(dir: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    // Version 2, then version 1.
    let number = |names: [&str; 2]| names.into_iter().find_map(|name| read(name)?.trim().parse::<u64>().ok());
    let limit = number(["memory.max", "memory.limit_in_bytes"])?;
    let used = number(["memory.current", "memory.usage_in_bytes"])?;
    let statistics = read("memory.stat").unwrap_or_default();
    let pages = |line: &str| {
        let value = line.strip_prefix("inactive_file ").or_else(|| line.strip_prefix("active_file "))?;
        value.parse::<u64>().ok()
    };
    let files: u64 = statistics.lines().filter_map(pages).sum();
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

/// Bytes of memory that this process can still take: what the machine has available, or the rest of its control group's
/// limit where that is less.
pub fn available_memory_bytes() -> Option<u64> {
    let (_, machine) = memory_bytes()?;
    let group = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"].iter().find_map(|dir| group_rest(Path::new(dir)));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// Bytes that an ordinary user can still write on the disk of `path`.
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero byte and `stat` has room for what the call writes.
    let status = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let stat = unsafe { stat.assume_init() };
    // Narrower than 64 bits on some systems.
    #[allow(clippy::unnecessary_cast, clippy::allow_attributes)]
    let bytes = (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machine_says_something() {
        assert!(peak_rss_bytes() > 1 << 20);
        assert!(memory_bytes().is_some_and(|(total, available)| total >= available));
        assert!(available_memory_bytes().is_some_and(|available| available > 0));
        assert!(free_disk_bytes(Path::new("/")).is_some());
        assert!(!host_name().is_empty());
    }

    #[test]
    fn a_control_group_gives_back_the_pages_of_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(group_rest(dir.path()), None);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(group_rest(dir.path()), None);
        write("memory.max", "1000\n");
        write("memory.stat", "anon 300\nfile 400\ninactive_file 250\nactive_file 150\n");
        assert_eq!(group_rest(dir.path()), Some(700));
        write("memory.max", "100\n");
        assert_eq!(group_rest(dir.path()), Some(0));
    }
}
