//! Runs a loop compiled for the widest vectors that this processor has.
//!
//! The loops are plain Rust that the compiler vectorises. Wider vectors change the speed and not the bits: no
//! multiplication is fused with an addition and nothing is reassociated.

/// Defines a function whose body is compiled twice, once for AVX2, and picked at run time.
macro_rules! dispatched {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "the body must be compiled inside each variant")]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) {
                    body($($arg),*);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, as was just found.
                    unsafe { avx2($($arg),*) };
                    return;
                }
            }
            body($($arg),*);
        }
    };
}
pub(crate) use dispatched;
