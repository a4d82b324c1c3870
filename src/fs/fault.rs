//! Faults on request: tests stop the program, or let the disk fail, at each change that it makes.
//!
//! `SIMSIAM_PIPE_FAULT=kill:17` ends the process as `kill -9` would, before its 17th change; `eio:17`,
//! `enospc:17` and `erofs:17` let that change fail; `enospc:17+` lets all later ones fail, too. Builds without
//! debug assertions, such as releases, hold none of this.

/// A change to the disk is about to be made.
///
/// # Errors
/// When it shall fail.
#[cfg(not(debug_assertions))]
pub(super) fn change() -> std::io::Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
pub(super) use requested::change;

#[cfg(debug_assertions)]
mod requested {
    use std::{
        env, io, process,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    /// What shall happen.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Kill,
        Fail(i32),
    }

    /// What shall happen, and when.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Fault {
        kind: Kind,
        at: u64,
        and_later: bool,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let (kind, at) = text.split_once(':')?;
            let kind = match kind {
                "kill" => Kind::Kill,
                "eio" => Kind::Fail(libc::EIO),
                "enospc" => Kind::Fail(libc::ENOSPC),
                "erofs" => Kind::Fail(libc::EROFS),
                _ => return None,
            };
            let and_later = at.ends_with('+');
            Some(Self { kind, at: at.trim_end_matches('+').parse().ok()?, and_later })
        }

        fn strikes(self, count: u64) -> bool {
            count == self.at || (self.and_later && count > self.at)
        }
    }

    pub(in crate::fs) fn change() -> io::Result<()> {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let fault = FAULT.get_or_init(|| Fault::parse(&env::var("SIMSIAM_PIPE_FAULT").ok()?));
        let Some(fault) = fault else { return Ok(()) };
        if !fault.strikes(COUNT.fetch_add(1, Ordering::SeqCst) + 1) {
            return Ok(());
        }
        match fault.kind {
            Kind::Fail(code) => Err(io::Error::from_raw_os_error(code)),
            Kind::Kill => {
                // SAFETY: a signal to this process itself, from which it does not return.
                unsafe {
                    libc::kill(libc::getpid(), libc::SIGKILL);
                }
                process::abort()
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn requests_are_understood() {
            let fault = Fault::parse("enospc:3+").unwrap();
            assert_eq!(fault, Fault { kind: Kind::Fail(libc::ENOSPC), at: 3, and_later: true });
            assert_eq!([2, 3, 4].map(|count| fault.strikes(count)), [false, true, true]);
            let fault = Fault::parse("kill:3").unwrap();
            assert_eq!([2, 3, 4].map(|count| fault.strikes(count)), [false, true, false]);
            assert_eq!(Fault::parse("flood:3"), None);
        }
    }
}
