//! What the benches share.

pub mod figures;
pub mod load;
pub mod node;
pub mod serving;
pub mod table;
