//! The clock, the machine and processes: what the standard library lacks.

use std::{
    fmt, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// A moment in UTC, to the second, written as `2026-01-31T09:05:00Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The present.
    pub fn now() -> Self {
        Self(now_ns() / 1_000_000_000)
    }

    /// From seconds since 1970.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// For file names: `20260131-090500`.
    pub fn compact(self) -> String {
        self.to_string().replace(['-', ':', 'Z'], "").replace('T', "-")
    }

    fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<i64>);
        let mut time = time.splitn(3, ':').map(str::parse::<i64>);
        let next = |parts: &mut dyn Iterator<Item = Result<i64, _>>| parts.next()?.ok();
        let (year, month, day) = (next(&mut date)?, next(&mut date)?, next(&mut date)?);
        let (hour, minute, second) = (next(&mut time)?, next(&mut time)?, next(&mut time)?);
        let in_range = (1970..10000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        in_range.then(|| Self(days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second))
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level
/// date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The reverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(86400));
        let rest = self.0.rem_euclid(86400);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is not a time in UTC")))
    }
}

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

/// Gives a child its own process group and has the kernel kill it when this thread's process dies, however
/// that happens.
pub fn isolate_child(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: between fork and exec the closure makes only async-signal-safe calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died before the line above.
                if libc::getppid() as u32 != parent {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
    }
}

/// Asks a child's whole process group to end; with `force` it has no choice.
pub fn kill_group(pid: u32, force: bool) {
    let signal = if force { libc::SIGKILL } else { libc::SIGTERM };
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: the call has no memory effects; the group was made by `isolate_child`.
        unsafe {
            libc::kill(-pid, signal);
        }
    }
}

/// Kills a child's process group when this process dies, however that happens: what the child has started itself
/// does not see its parent's death. A shell waits for the end of a pipe that only this process holds.
#[derive(Debug)]
pub struct GroupGuard(Child);

impl GroupGuard {
    /// Guards the group of a child that [`isolate_child`] prepared.
    ///
    /// # Errors
    /// When there is no shell.
    pub fn watch(child: u32) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        // This spelling of `kill` works in dash, bash and busybox; with `--` it does not in dash.
        shell.args(["-c", &format!("read -r line; kill -9 -{child}")]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not in ours, where Ctrl-C would end it first.
        shell.process_group(0);
        shell.spawn().map(Self)
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        // Killed before its pipe is closed, so it kills nobody.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip_through_text() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(seconds)));
        }
        assert_eq!(Timestamp(951_782_461).compact(), "20000229-000101");
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

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
