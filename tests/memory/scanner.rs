//! An allocator that reports each block that is freed with a secret in it.

#![allow(
    unsafe_code,
    reason = "an allocator is unsafe, and reads blocks as bytes"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};

#[global_allocator]
static ALLOCATOR: Scanner = Scanner;

/// What blocks are searched for, or null.
static NEEDLES: AtomicPtr<Vec<Needle>> = AtomicPtr::new(std::ptr::null_mut());
static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());
/// A [`Watch`] sees the whole process, so tests run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    static IS_PAUSED: Cell<bool> = const { Cell::new(false) };
}

struct Needle {
    name: &'static str,
    form: &'static str,
    bytes: Vec<u8>,
}

/// A freed block with a secret in it.
struct Fault {
    name: &'static str,
    form: &'static str,
    size: usize,
    backtrace: String,
}

struct Scanner;

// SAFETY: all blocks are those of the system's allocator.
unsafe impl GlobalAlloc for Scanner {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that all bytes of a block can be read, and none shows what an earlier block has left behind.
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is still allocated, with this layout.
        unsafe {
            search(block, layout.size());
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Always into another block, as an allocator may do at any time.
        // SAFETY: the caller promises that the new layout is valid, and both blocks have the bytes that are copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Searches a block that is about to be freed.
///
/// # Safety
///
/// `block` has `size` bytes.
unsafe fn search(block: *const u8, size: usize) {
    let needles = NEEDLES.load(Ordering::Acquire);
    let is_paused = || IS_PAUSED.try_with(Cell::get).unwrap_or(true);
    // While a test panics, its message is no copy of the crate, and taking a backtrace could wait for itself.
    if needles.is_null() || is_paused() || std::thread::panicking() {
        return;
    }
    // SAFETY: needles are never freed. All bytes of a block have a value since it was allocated.
    let (needles, bytes) = unsafe { (&*needles, std::slice::from_raw_parts(block, size)) };
    for needle in needles {
        let is_at = |window: &[u8]| window[0] == needle.bytes[0] && window == needle.bytes;
        if bytes.windows(needle.bytes.len()).any(is_at) {
            unwatched(|| {
                let fault = Fault {
                    name: needle.name,
                    form: needle.form,
                    size,
                    backtrace: own_frames(),
                };
                FAULTS
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(fault);
            });
            return;
        }
    }
}

/// The functions of this crate and of its tests on the stack.
fn own_frames() -> String {
    let backtrace = Backtrace::force_capture().to_string();
    let is_own = |line: &&str| {
        (line.contains("tower_bearer") || line.contains("memory::"))
            && !line.contains("memory::scanner")
    };
    let mut frames = String::new();
    for line in backtrace.lines().filter(is_own).take(12) {
        let _ = writeln!(frames, "  {}", line.trim());
    }
    frames
}

/// Runs code of the test itself, whose blocks are not searched on this thread.
pub(crate) fn unwatched<T>(work: impl FnOnce() -> T) -> T {
    let before = IS_PAUSED.replace(true);
    let result = work();
    IS_PAUSED.set(before);
    result
}

/// A test that runs while no other one does.
pub(crate) struct Alone {
    _others_wait: MutexGuard<'static, ()>,
}

impl Alone {
    pub(crate) fn new() -> Self {
        let lock = ONE_AT_A_TIME.lock();
        Self {
            _others_wait: lock.unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Searches for these names' secrets, in plain text and in base64. Each secret has at least 32 bytes.
    pub(crate) fn watch(&self, secrets: &[(&'static str, &'static str)]) -> Watch<'_> {
        // On a stack of its own: what encoding leaves on the stack is copied into the unused parts of large futures.
        let needles: Vec<Needle> = std::thread::scope(|scope| {
            let forms = || {
                secrets
                    .iter()
                    .flat_map(|(name, secret)| forms(name, secret))
            };
            let needles = scope.spawn(move || forms().collect());
            needles.join().expect("no secret is too short")
        });
        FAULTS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        NEEDLES.store(Box::into_raw(Box::new(needles)), Ordering::Release);
        Watch { _test: self }
    }
}

/// Searches all blocks that are freed while it lives.
pub(crate) struct Watch<'a> {
    _test: &'a Alone,
}

impl Watch<'_> {
    /// Ends the search. Returns a line for each fault, with the functions that freed the block.
    pub(crate) fn faults(self) -> Vec<String> {
        drop(self);
        let faults = std::mem::take(&mut *FAULTS.lock().unwrap_or_else(PoisonError::into_inner));
        let line = |fault: Fault| {
            format!(
                "{} {} in a freed block of {} bytes:\n{}",
                fault.name, fault.form, fault.size, fault.backtrace
            )
        };
        faults.into_iter().map(line).collect()
    }

    /// Ends the search.
    ///
    /// # Panics
    ///
    /// If a block was freed with a secret in it.
    #[track_caller]
    pub(crate) fn assert_wiped(self) {
        let faults = self.faults();
        assert!(
            faults.is_empty(),
            "{} faults\n{}",
            faults.len(),
            faults.join("\n")
        );
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        NEEDLES.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// Both halves of a secret, as they are and in base64.
///
/// Halves, because a buffer that grows leaves the beginning of a secret behind, and because a secret may be written with
/// an escape in it.
fn forms(name: &'static str, secret: &'static str) -> Vec<Needle> {
    let (first, second) = secret.as_bytes().split_at(secret.len() / 2);
    [first, second]
        .into_iter()
        .flat_map(|half| {
            assert!(half.len() >= 16, "{name} is too short to be unique");
            let plain = Needle {
                name,
                form: "in plain text",
                bytes: half.to_vec(),
            };
            let encoded = (0..3).map(move |before| Needle {
                name,
                form: "in base64",
                bytes: in_base64(half, before),
            });
            [plain].into_iter().chain(encoded)
        })
        .collect()
}

/// `text` in base64 after other bytes, without the characters that depend on what is around it.
fn in_base64(text: &[u8], before: usize) -> Vec<u8> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(text);
    bytes.truncate(bytes.len() / 3 * 3);
    let encoded = BASE64_STANDARD.encode(&bytes).into_bytes();
    encoded[if before == 0 { 0 } else { 4 }..].to_vec()
}
