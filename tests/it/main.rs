//! Black-box tests: the real binary, driven over HTTP and by its own command line, and the house rules as a program.

mod audit;
mod contention;
mod crash;
mod database;
mod databases;
mod docs;
mod harness;
mod hostile;
mod identity;
mod inputs;
mod listen;
mod lists;
mod mfa;
mod namespaces;
mod pki;
mod quotas;
mod seen;
mod server;
mod signin;
mod ssh;
mod start;
mod surface;
mod tenants;
mod tidy;
mod totp;
mod transit;
