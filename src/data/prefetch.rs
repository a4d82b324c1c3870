//! Computes the next item on a thread of its own while the current one is used.

use std::{
    panic::resume_unwind,
    sync::mpsc::{Receiver, sync_channel},
    thread::JoinHandle,
};

/// An iterator whose next item is computed, on a thread of its own, while the current one is used.
pub(super) struct Prefetched<T> {
    receiver: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetched<T> {
    /// Starts to compute the items of `iter`.
    pub(super) fn start<I: Iterator<Item = T> + Send + 'static>(iter: I) -> Self {
        // A channel without room: the thread holds one finished item and waits until it is taken.
        let (sender, receiver) = sync_channel(0);
        let thread = std::thread::spawn(move || {
            for item in iter {
                if sender.send(item).is_err() {
                    break;
                }
            }
        });
        Self { receiver: Some(receiver), thread: Some(thread) }
    }
}

impl<T> Prefetched<T> {
    fn join(&mut self) {
        // The thread stops at its next item once nobody listens.
        self.receiver = None;
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl<T> Iterator for Prefetched<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let item = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        if item.is_none() {
            self.join();
        }
        item
    }
}

impl<T> Drop for Prefetched<T> {
    fn drop(&mut self) {
        self.join();
    }
}
