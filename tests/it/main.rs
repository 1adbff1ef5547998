//! Black-box tests: the real binary, driven over HTTP and by its own command line, and the house rules as a program.

mod audit;
mod contention;
mod crash;
mod database;
mod databases;
mod harness;
mod hostile;
mod listen;
mod seen;
mod server;
mod signin;
mod start;
mod tidy;
