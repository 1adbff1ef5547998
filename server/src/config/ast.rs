//! The tree that a configuration text, HCL or JSON, is read into: the policies' own reader, handed on by the API boundary.

pub use ringfence_node::hcl::{Body, HclError, Item, Value, parse};
