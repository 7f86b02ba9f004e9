//! Turns panics of libraries into errors, and prints nothing: a damaged file can make a library
//! panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Depth of nested calls of [`catch`] on this thread.
    static CAUGHT: Cell<usize> = const { Cell::new(0) };
}

/// A panic that was caught.
#[derive(Debug)]
pub struct Panicked;

/// Returns the result of `work`, or [`Panicked`] without printing the panic. A panic on another
/// thread prints as usual.
///
/// # Errors
/// `work` panicked.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if CAUGHT.get() == 0 {
                usual(panic);
            }
        }));
    });
    CAUGHT.set(CAUGHT.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(CAUGHT.get() - 1);
    done.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_also_within_another() {
        assert_eq!(catch(|| 1).unwrap(), 1);
        let nested = catch(|| catch(|| -> i32 { panic!("inner") }).is_err());
        assert!(nested.unwrap());
        assert!(catch(|| -> i32 { panic!("outer") }).is_err());
        assert_eq!(CAUGHT.get(), 0);
    }
}
