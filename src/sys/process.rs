//! Child processes: groups that end with this one, and how much memory a child held.

use std::{
    io::{self, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::machine;

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

/// Fewer looks than this say little about how much memory a child held.
const ENOUGH_LOOKS: usize = 4;

/// A child of which the most memory that it held is noted, so that it can be told even when the child was killed.
#[derive(Debug)]
pub struct WatchedChild {
    child: Child,
    /// What this process held when the child began: a child is counted from its parent's size on.
    own_size: u64,
    seen: u64,
    num_looks: usize,
    counted: u64,
    ended: Option<ExitStatus>,
}

impl WatchedChild {
    /// Watches a child that nobody waits for.
    pub fn new(child: Child) -> Self {
        Self { child, own_size: machine::rss_bytes(), seen: 0, num_looks: 0, counted: 0, ended: None }
    }

    /// Its number, which is that of its group if [`isolate_child`] prepared it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not know the child.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            if let Some(bytes) = machine::peak_rss_bytes_of(self.child.id()) {
                self.seen = self.seen.max(bytes);
                self.num_looks += 1;
            }
            self.ended = self.reap()?;
        }
        Ok(self.ended)
    }

    /// The most memory that it has held, in bytes: itself, or if it has ended any one of those that it started and
    /// waited for. 0 where that is not known: the system does not say, or the child was too short-lived.
    pub fn peak_rss_bytes(&self) -> u64 {
        let seen = if self.num_looks < ENOUGH_LOOKS { 0 } else { self.seen };
        seen.max(self.counted)
    }

    fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        let pid = libc::pid_t::try_from(self.child.id()).map_err(io::Error::other)?;
        let mut status = 0;
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        let found = loop {
            // SAFETY: both pointers lead to memory that is ours and large enough.
            let found = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
            if found >= 0 {
                break found;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        if found == 0 {
            return Ok(None);
        }
        // SAFETY: zeroed is a valid value, and the call has filled it.
        let usage = unsafe { usage.assume_init() };
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        let counted = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(unit);
        // Below that it may be our own size, which the child had between fork and exec.
        if counted > self.own_size + self.own_size / 8 {
            self.counted = counted;
        }
        Ok(Some(ExitStatus::from_raw(status)))
    }
}

/// Kills a child's process group when this process dies, however that happens: what the child has started itself
/// does not see its parent's death. A shell waits for the end of a pipe that only this process holds.
#[derive(Debug)]
pub struct GroupGuard(Child);

impl GroupGuard {
    /// A guard of nobody yet. Made before the child, so that little time passes between its start and [`Self::watch`].
    ///
    /// # Errors
    /// When there is no shell.
    pub fn new() -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        // This spelling of `kill` works in dash, bash and busybox; with `--` it does not in dash.
        shell.args(["-c", "read -r group && { read -r line; kill -9 -$group; }"]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not in ours, where Ctrl-C would end it first.
        shell.process_group(0);
        shell.spawn().map(Self)
    }

    /// Guards the group of a child that [`isolate_child`] prepared.
    ///
    /// # Errors
    /// When the shell is gone.
    pub fn watch(&mut self, child: u32) -> io::Result<()> {
        match &mut self.0.stdin {
            Some(pipe) => writeln!(pipe, "{child}"),
            None => Ok(()),
        }
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
    use std::{thread, time::Duration};

    use super::*;

    fn wait(script: &str) -> (ExitStatus, u64) {
        let mut child = WatchedChild::new(Command::new("/bin/sh").args(["-c", script]).spawn().unwrap());
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status, child.peak_rss_bytes());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_child_is_reaped_with_its_status_and_signal() {
        assert_eq!(wait("exit 3").0.code(), Some(3));
        assert_eq!(wait("kill -9 $$").0.signal(), Some(libc::SIGKILL));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_memory_of_a_child_is_its_own() {
        // This process is made large, the child small.
        let ballast = vec![1_u8; 64 << 20];
        let (_, peak) = wait("sleep 0.1");
        assert!(ballast.iter().all(|byte| *byte == 1));
        assert!(peak > 100 << 10 && peak < 32 << 20, "{peak}");
    }
}
