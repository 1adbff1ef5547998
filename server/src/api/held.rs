//! A bound on the memory that request bodies take before anybody is authenticated: each core holds so many bytes of
//! larger bodies at a time, and refuses further ones. Small bodies are always taken, so that nobody can shut others
//! out by sending large ones.

use std::cell::Cell;

/// Bodies up to this are not counted.
const SMALL_BODY_BYTES: usize = 64 << 10;
/// All larger bodies of a core.
const MAX_HELD_BYTES: usize = 256 << 20;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// What one request holds of its core's bytes, until it is dropped.
#[derive(Default)]
pub struct Held(usize);

impl Held {
    /// Takes the bytes of a body that has grown to `length`; false if there is no room.
    pub fn grow(&mut self, length: usize) -> bool {
        let more = if length > SMALL_BODY_BYTES { length.saturating_sub(self.0) } else { 0 };
        HELD.with(|all| {
            let fits = all.get() + more <= MAX_HELD_BYTES;
            if fits {
                all.set(all.get() + more);
                self.0 += more;
            }
            fits
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|all| all.set(all.get() - self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_a_bound_and_give_it_back() {
        let (mut a, mut b) = (Held::default(), Held::default());
        assert!(a.grow(MAX_HELD_BYTES - 1) && a.grow(MAX_HELD_BYTES));
        assert!(!b.grow(SMALL_BODY_BYTES + 1) && b.grow(SMALL_BODY_BYTES));
        drop(a);
        assert!(b.grow(SMALL_BODY_BYTES + 1));
    }
}
