//! Values that must not leak: zeroed when dropped, redacted in debug output, compared in constant time.

use std::fmt;
use zeroize::Zeroize;

/// A secret value. `Debug` prints `Secret(..)`; dropping it overwrites the memory.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes ownership of a secret.
    pub fn new(value: T) -> Self {
        Secret(value)
    }

    /// Lends the secret. Callers keep the borrow short and never copy it into something that does not zeroize.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Lends the secret for a change in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        same_bytes(self.0.as_ref(), other.0.as_ref())
    }
}

/// Compares two byte strings in time that depends on their lengths only.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(a, b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(..)");
    }

    #[test]
    fn equality_is_by_bytes() {
        assert_eq!(Secret::new(vec![1u8, 2]), Secret::new(vec![1u8, 2]));
        assert!(!same_bytes(b"a", b"b"));
        assert!(!same_bytes(b"a", b"ab"));
    }
}
