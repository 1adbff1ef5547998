//! The one published cell. A reader compares the sequence, one cache line, and takes the lock only when it moved.

use ringfence_node::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the owner publishes for all cores.
pub struct Published {
    sequence: AtomicU64,
    cell: Mutex<Arc<Cell>>,
}

impl Published {
    /// Begins with a cell.
    pub fn new(cell: Arc<Cell>) -> Published {
        Published { sequence: AtomicU64::new(cell.sequence), cell: Mutex::new(cell) }
    }

    /// The newest sequence.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// The newest cell.
    pub fn cell(&self) -> Arc<Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Swaps the cell; whoever reads the sequence afterwards finds this cell or a newer one.
    pub fn swap(&self, cell: Arc<Cell>) {
        let sequence = cell.sequence;
        let old = std::mem::replace(&mut *self.cell.lock().unwrap_or_else(PoisonError::into_inner), cell);
        self.sequence.store(sequence, Ordering::Release);
        // the old image may be large: its pages are freed outside the lock
        drop(old);
    }
}
