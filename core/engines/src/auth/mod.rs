//! Auth methods: they prove who a client is and say what its token may be; the vault floor makes the token.

pub mod approle;
pub mod cert;
pub mod jwt;
pub mod kubernetes;
pub mod userpass;
