//! Sockets of the machine: opening, naming, options. What is done with them is in `stream`.
#![allow(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Connections the kernel may hold for a listener; it cuts this down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A socket address as the kernel wants it.
#[repr(C)]
pub(super) struct RawAddr {
    storage: libc::sockaddr_storage,
    pub len: libc::socklen_t,
}

impl RawAddr {
    pub fn of(addr: &SocketAddr) -> RawAddr {
        // SAFETY: sockaddr_storage is plain data for which zero is valid; it is large and aligned enough for both
        // concrete forms, which are written whole.
        unsafe {
            let mut storage: libc::sockaddr_storage = std::mem::zeroed();
            let place: *mut libc::sockaddr_storage = &mut storage;
            let len = match addr {
                SocketAddr::V4(v4) => {
                    place.cast::<libc::sockaddr_in>().write(libc::sockaddr_in {
                        sin_family: libc::AF_INET as libc::sa_family_t,
                        sin_port: v4.port().to_be(),
                        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                        sin_zero: [0; 8],
                    });
                    size_of::<libc::sockaddr_in>()
                }
                SocketAddr::V6(v6) => {
                    place.cast::<libc::sockaddr_in6>().write(libc::sockaddr_in6 {
                        sin6_family: libc::AF_INET6 as libc::sa_family_t,
                        sin6_port: v6.port().to_be(),
                        sin6_flowinfo: v6.flowinfo(),
                        sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                        sin6_scope_id: v6.scope_id(),
                    });
                    size_of::<libc::sockaddr_in6>()
                }
            };
            RawAddr { storage, len: len as libc::socklen_t }
        }
    }

    pub fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        let place = &raw const self.storage;
        // SAFETY: the family says which concrete form the kernel has written.
        unsafe {
            match self.storage.ss_family as i32 {
                libc::AF_INET => {
                    let a = place.cast::<libc::sockaddr_in>().read();
                    let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
                    Ok(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
                }
                libc::AF_INET6 => {
                    let a = place.cast::<libc::sockaddr_in6>().read();
                    let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                    Ok(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), a.sin6_flowinfo, a.sin6_scope_id).into())
                }
                _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
            }
        }
    }
}

/// Which end of a socket.
#[derive(Clone, Copy)]
pub(super) enum End {
    Local,
    Peer,
}

/// The internet address of one end.
pub(super) fn address(fd: RawFd, end: End) -> io::Result<SocketAddr> {
    // SAFETY: the kernel writes at most `len` bytes of a live storage and then its length.
    unsafe {
        let mut addr =
            RawAddr { storage: std::mem::zeroed(), len: size_of::<libc::sockaddr_storage>() as libc::socklen_t };
        let place = (&raw mut addr.storage).cast();
        let rc = match end {
            End::Local => libc::getsockname(fd, place, &mut addr.len),
            End::Peer => libc::getpeername(fd, place, &mut addr.len),
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { addr.to_socket_addr() }
    }
}

/// A TCP socket of the address's family.
pub(super) fn tcp_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers; the descriptor it answers is owned by nobody else.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// A bound and listening TCP socket.
pub(super) fn tcp_listener(addr: &SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let fd = tcp_socket(addr)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if reuse_port {
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    let raw = RawAddr::of(addr);
    // SAFETY: `raw` is a live address of `len` bytes.
    unsafe {
        if libc::bind(fd.as_raw_fd(), raw.as_ptr(), raw.len) < 0 || libc::listen(fd.as_raw_fd(), BACKLOG) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(fd)
}

/// Starts a connect on a non-blocking socket; "in progress" is success.
pub(super) fn start_connect(fd: RawFd, addr: &RawAddr) -> io::Result<()> {
    // SAFETY: `addr` is a live address of `len` bytes.
    if unsafe { libc::connect(fd, addr.as_ptr(), addr.len) } < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
    }
    Ok(())
}

/// The error a socket has been waiting to tell, once.
pub(super) fn pending_error(fd: RawFd) -> io::Result<()> {
    let mut errno: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes one int into a live int of that length.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut errno).cast(), &mut len) };
    match (rc, errno) {
        (0, 0) => Ok(()),
        (0, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an integer option.
pub(super) fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int from a live int of that length.
    let rc =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as libc::socklen_t) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells the peer that no more will come.
pub(super) fn shutdown_write(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::shutdown(fd, libc::SHUT_WR) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Who is at the other end of a unix socket, as the kernel saw it at connect: (uid, gid, pid).
pub(super) fn unix_peer(fd: RawFd) -> io::Result<(u32, u32, i32)> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into a live ucred.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut cred).cast(), &mut len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok((cred.uid, cred.gid, cred.pid)) }
}
