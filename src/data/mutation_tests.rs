//! Broken and odd files by the thousand: no panic, no second of computing for one file, no memory beyond its due.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use super::{
    decode_tests::corpus,
    hostile::{self, TARGETS, mutate, seeds},
};

/// A decoder may hold pixels in several forms: `hostile::OPTIONS` allows 3 MiB of them, and 64 MiB for all else.
const MAX_BYTES: usize = 100 << 20;
const MAX_SECONDS: f64 = 1.0;

/// Counts what the current thread holds, so that tests may run beside each other.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(change: impl FnOnce(usize) -> usize) {
    // A thread that ends has no more to count.
    let _ = HELD.try_with(|held| {
        held.set(change(held.get()));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|held| held.saturating_add(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(|held| held.saturating_add(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(|held| held.saturating_sub(layout.size()).saturating_add(size));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(|held| held.saturating_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Seconds that this thread has computed: a machine that is busy or paused does not count.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of this function's own.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Gives the bytes to a target and watches it.
fn watch(name: &str, target: fn(&[u8]), bytes: &[u8]) {
    let before = HELD.get();
    PEAK.set(before);
    let began = cpu_seconds();
    target(bytes);
    let (seconds, held) = (cpu_seconds() - began, PEAK.get().saturating_sub(before));
    assert!(seconds < MAX_SECONDS, "{name}: {seconds:.2} s for {} bytes", bytes.len());
    assert!(held < MAX_BYTES, "{name}: {held} bytes held for {} bytes", bytes.len());
}

/// A JPEG with this EXIF block.
fn with_exif(exif: &[u8]) -> Vec<u8> {
    let (_, jpeg) = corpus().swap_remove(0);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend((exif.len() as u16 + 8).to_be_bytes());
    bytes.extend(b"Exif\0\0");
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// Files that are odd on purpose.
fn odd_files() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = vec![("empty".into(), vec![]), ("zeros".into(), vec![0; 5000])];
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        let mut bytes = [tag.to_be_bytes(), kind.to_be_bytes()].concat();
        bytes.extend([count.to_be_bytes(), value.to_be_bytes()].concat());
        bytes
    };
    let head = |first: u32, entries: &[Vec<u8>], next: u32| {
        let mut bytes = b"MM\0*".to_vec();
        bytes.extend(first.to_be_bytes());
        bytes.extend((entries.len() as u16).to_be_bytes());
        bytes.extend(entries.concat());
        bytes.extend(next.to_be_bytes());
        bytes
    };
    for (name, exif) in [
        ("orientation 99", head(8, &[entry(0x112, 3, 1, 99 << 16)], 0)),
        ("orientation as text", head(8, &[entry(0x112, 2, u32::MAX, 0)], 0)),
        ("a directory beyond the end", head(u32::MAX, &[], 0)),
        ("a directory that follows itself", head(8, &[entry(0x112, 3, 1, 6 << 16)], 8)),
        ("a count of four billion", head(8, &[entry(0x112, 3, u32::MAX, 6 << 16), entry(0x8769, 4, 1, 8)], 8)),
        ("no EXIF at all", b"MM".to_vec()),
    ] {
        files.push((name.into(), with_exif(&exif)));
    }
    // Bombs: small files that claim to be huge.
    let mut gif = b"GIF89a\xFF\xFF\xFF\xFF\x80\0\0\0\0\0\xFF\xFF\xFF".to_vec();
    gif.extend(b"\x2C\0\0\0\0\xFF\xFF\xFF\xFF\0\x02\x02\x4C\x01\0\x3B");
    files.push(("a GIF of 65535 × 65535".into(), gif));
    let mut bmp = vec![0; 54];
    bmp[..2].copy_from_slice(b"BM");
    (bmp[10], bmp[14], bmp[26], bmp[28]) = (54, 40, 1, 24);
    bmp[18..22].copy_from_slice(&i32::MAX.to_le_bytes());
    bmp[22..26].copy_from_slice(&i32::MIN.to_le_bytes());
    files.push(("a BMP of 2^31".into(), bmp));
    let png = corpus().into_iter().find(|(name, _)| name == "Png").map(|(_, bytes)| bytes).unwrap_or_default();
    let mut claims = png.clone();
    claims[16..24].copy_from_slice(&[0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF]);
    files.push(("a PNG of 2^31".into(), claims));
    files.push(("two files in one".into(), png.repeat(2)));
    files
}

#[test]
fn odd_files_and_their_tenths_are_taken_or_refused_at_once() {
    for (name, bytes) in corpus().into_iter().chain(odd_files()) {
        for tenth in 0..=10 {
            watch(&format!("{name} cut to {tenth}0 %"), hostile::decode, &bytes[..bytes.len() * tenth / 10]);
        }
    }
}

#[test]
fn bombs_are_refused_by_their_header_with_hardly_any_memory() {
    let before = HELD.get();
    PEAK.set(before);
    for (name, bytes) in odd_files().iter().filter(|(name, _)| name.contains(" of 2^31") || name.contains("65535")) {
        let peak = PEAK.replace(HELD.get());
        assert!(peak >= before);
        let held = HELD.get();
        let error = super::decode::decode_with(bytes, &hostile::OPTIONS).unwrap_err();
        assert!(PEAK.get() - held < 1 << 20, "{name}: {} bytes", PEAK.get() - held);
        assert!(!error.is_empty());
    }
}

#[test]
fn two_thousand_mutations_are_survived() {
    let images: Vec<(String, Vec<u8>)> = corpus().into_iter().chain(odd_files()).collect();
    let mut executions = 0;
    for (name, target) in TARGETS {
        let seeds = match name {
            "decode" | "jpeg" => images.iter().map(|(_, bytes)| bytes.clone()).collect(),
            _ => seeds(name),
        };
        let rounds = if name == "decode" { 1200 } else { 100 };
        for round in 0..rounds {
            let seed = &seeds[round as usize % seeds.len()];
            let other = &images[(round as usize * 7) % images.len()].1;
            watch(name, target, &mutate(seed, other, round));
            executions += 1;
        }
    }
    assert_eq!(executions, 2000);
}
