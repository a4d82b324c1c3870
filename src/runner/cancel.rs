//! Ctrl-C and SIGTERM: the first asks stages to stop at a good place, the second ends the process.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Whether and by which signal the user asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
}

impl Cancel {
    /// Listens to Ctrl-C and SIGTERM from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> io::Result<Self> {
        let cancel = Self::default();
        let earlier = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the shutdown looks at what an earlier signal has set.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&earlier))?;
            flag::register(signal, Arc::clone(&earlier))?;
            flag::register_usize(signal, Arc::clone(&cancel.signal), signal as usize)?;
        }
        Ok(cancel)
    }

    /// As if the signal had come.
    pub fn set(&self, signal: i32) {
        self.signal.store(signal as usize, Ordering::SeqCst);
    }

    /// Whether the user asked to stop.
    pub fn is_set(&self) -> bool {
        self.signal.load(Ordering::SeqCst) != 0
    }

    /// The signal, if one came.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}
