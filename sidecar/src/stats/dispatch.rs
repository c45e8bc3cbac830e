//! Runs a kernel with the widest vector instructions of this processor. The only `unsafe` of `stats`.
//!
//! A kernel is plain Rust over arrays of lanes. Compiled for AVX2 it is three times as fast as for the SSE2 that every x86-64 has, and
//! it computes the same bits: Rust neither reorders sums nor fuses a product with a sum. Which of the two runs is known at run time
//! only, and to call the one for AVX2 is `unsafe`, as is asking for memory ahead; without it wide rows come in half as fast.
#![allow(unsafe_code, reason = "calling what was compiled for AVX2 after looking for it, and prefetching")]

/// What runs. Everything it calls per value must be `inline(always)`, or is compiled for SSE2.
pub trait Kernel {
    /// What comes of it.
    type Output;
    /// To be `inline(always)` too.
    fn run(self) -> Self::Output;
}

/// Runs it.
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

/// Asks for the cache line in which `values[at]` is, or would be if there were such a value.
#[inline(always)]
pub fn prefetch<T>(values: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that anybody sees and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}
