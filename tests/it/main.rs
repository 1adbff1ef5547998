//! Black-box tests: the real binary, driven over HTTP and by its own command line, and the house rules as a program.

mod audit;
mod crash;
mod database;
mod databases;
mod harness;
mod hostile;
mod identity;
mod listen;
mod mfa;
mod server;
mod start;
mod tidy;
