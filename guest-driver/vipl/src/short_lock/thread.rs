//! Which thread this is, in one instruction.
#![cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "no safe way to name the register")
)]

/// What no two threads of a process have at the same time: never 0, and a multiple of 8.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) fn current() -> u64 {
    let thread: u64;
    // SAFETY: the ABI puts the thread pointer's own address where it points to. The compiler's thread-local variables are a call away
    // in a shared library.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) thread, options(pure, readonly, nostack, preserves_flags));
    }
    thread
}

/// What no two threads of a process have at the same time: never 0, and a multiple of 8.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) fn current() -> u64 {
    thread_local! {
        static HERE: u64 = const { 0 };
    }
    HERE.with(|here| std::ptr::from_ref(here).addr() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_thread_is_another_one_and_stays_it() {
        let here = super::current();
        let there = std::thread::spawn(super::current).join().unwrap();
        assert_ne!(here, there);
        assert_eq!(here, super::current());
        assert!([here, there].iter().all(|thread| *thread != 0 && thread % 8 == 0));
    }
}
