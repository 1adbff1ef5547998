//! Black-box tests: the real binary, driven over HTTP and by its own command line, and the house rules as a program.

mod audit;
mod contention;
mod crash;
mod database;
mod databases;
mod docs;
mod harness;
mod hostile;
mod inputs;
mod listen;
mod load;
mod seen;
mod server;
mod start;
mod surface;
mod tidy;
