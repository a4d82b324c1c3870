//! One source, several instruction sets: the loop bodies are written once and left to the vectoriser, which sees
//! them under AVX-512, AVX2 with FMA, and the target's baseline. The choice is made at run time.
//!
//! Rust never fuses a multiplication and an addition by itself, so all versions of a body give the same bits.

use std::sync::OnceLock;

/// The widest instruction set that both the machine and these kernels know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Simd {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

/// What this machine has, asked once.
///
/// In tests, `BACKBONE_SIMD=baseline` or `avx2` holds it back, so that one machine can test all versions.
pub(crate) fn simd() -> Simd {
    static SIMD: OnceLock<Simd> = OnceLock::new();
    *SIMD.get_or_init(|| {
        #[cfg(test)]
        match std::env::var("BACKBONE_SIMD").as_deref() {
            Ok("baseline") => return Simd::Baseline,
            #[cfg(target_arch = "x86_64")]
            Ok("avx2") => return Simd::Avx2,
            _ => {}
        }
        detect()
    })
}

fn detect() -> Simd {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
        {
            return Simd::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Simd::Avx2;
        }
    }
    Simd::Baseline
}

/// Defines a function whose body is compiled for each instruction set.
macro_rules! multiversion {
    ($(#[$meta:meta])* fn $name:ident $(<$(const $generic:ident: $kind:ty),+>)? ($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
        fn $name $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "must be inlined into the function that has the target feature")]
            fn body $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512 $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) {
                    body $(::<$($generic),+>)? ($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) {
                    body $(::<$($generic),+>)? ($($arg),*);
                }
                match $crate::kernels::simd() {
                    // SAFETY: the machine has these features, `simd` has just asked.
                    $crate::kernels::Simd::Avx512 => unsafe {
                        avx512 $(::<$($generic),+>)? ($($arg),*);
                    },
                    // SAFETY: as above.
                    $crate::kernels::Simd::Avx2 => unsafe {
                        avx2 $(::<$($generic),+>)? ($($arg),*);
                    },
                    $crate::kernels::Simd::Baseline => {
                        body $(::<$($generic),+>)? ($($arg),*);
                    }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body $(::<$($generic),+>)? ($($arg),*);
        }
    };
}

pub(crate) use multiversion;
