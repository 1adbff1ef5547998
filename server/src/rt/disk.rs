//! Disk operations of the log: aligned, direct where the file system allows it, durable when they say so.
//!
//! With a ring a durable write is one submission (O_DIRECT with RWF_DSYNC: data and what is needed to find it are on
//! the device when it completes) and leaves with the driver's next turn. Without a ring helper threads do pwrite and
//! fdatasync. Operations on names (open, rename, remove, directory sync) always go to a helper: they are rare and
//! block. Writes that are meant to be fast go into a file zero-filled beforehand by [`File::zero_fill`].
#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use io_uring::{opcode, squeue, types};

use super::buf::{AlignedBuf, BLOCK_BYTES};
use super::driver::{self, Driver};
use super::pool::{disk, unblock};

/// Zeros of one write when a file is filled: the log's own writes wait in the device's queue behind it, so it is short.
const FILL_BYTES: usize = 128 * 1024;

/// How a file is opened. Always for reading, and mode 0600 when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, not to be written.
    Read,
    /// An existing file.
    Write,
    /// A file that must not exist yet.
    CreateNew,
    /// An existing file, or a new one.
    CreateOrWrite,
}

/// An open file of one core.
pub struct File {
    driver: Rc<Driver>,
    file: Arc<std::fs::File>,
    direct: bool,
}

impl File {
    /// Opens for direct IO; buffered if the file system refuses that.
    pub async fn open(path: impl Into<PathBuf>, mode: OpenMode) -> io::Result<File> {
        let path = path.into();
        let (file, direct) = unblock(move || open_direct(&path, mode)).await?;
        Ok(File { driver: driver::current(), file: Arc::new(file), direct })
    }

    /// Whether reads and writes bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Writes the whole buffer at `offset`; when this answers `Ok` it survives a power cut. Offset and length are
    /// multiples of 4096. The buffer comes back either way.
    ///
    /// # Errors
    /// What the device or file system said; see [`is_no_space`]. Part of the data may have been written. A caller
    /// that needs durability must not retry: the kernel may have dropped the dirty state.
    pub async fn write_at_durable(&self, buf: AlignedBuf, offset: u64) -> (AlignedBuf, io::Result<()>) {
        self.write(buf, offset, Durability::Now).await
    }

    /// As [`File::write_at_durable`], but durable only after a later [`File::sync`].
    pub async fn write_at(&self, buf: AlignedBuf, offset: u64) -> (AlignedBuf, io::Result<()>) {
        self.write(buf, offset, Durability::Later).await
    }

    async fn write(&self, mut buf: AlignedBuf, offset: u64, durability: Durability) -> (AlignedBuf, io::Result<()>) {
        assert_aligned(offset, buf.len());
        if self.driver.uring().is_none() {
            let file = Arc::clone(&self.file);
            return disk(move || {
                let written = file.write_all_at(&buf, offset);
                let result = match durability {
                    Durability::Now => written.and_then(|()| file.sync_data()),
                    Durability::Later => written,
                };
                (buf, result)
            })
            .await;
        }
        let flags = if durability == Durability::Now { libc::RWF_DSYNC } else { 0 };
        let mut done = 0;
        while done < buf.len() {
            let rest = &buf[done..];
            let entry = opcode::Write::new(self.fd(), rest.as_ptr(), rest.len() as u32)
                .offset(offset + done as u64)
                .rw_flags(flags)
                .build();
            // SAFETY: the operation holds the buffer and the file.
            let op = unsafe { RingOp::new(&self.driver, entry, (buf, Arc::clone(&self.file))) };
            let (result, (back, _)) = op.await;
            buf = back;
            match result {
                Ok(0) => return (buf, Err(io::Error::from(io::ErrorKind::WriteZero))),
                // a short write ends where direct IO can go on only if on a block's edge: repeat the broken block
                Ok(n) if n as usize + done < buf.len() => {
                    let whole = n as usize / BLOCK_BYTES * BLOCK_BYTES;
                    if whole == 0 {
                        return (buf, Err(io::Error::from(io::ErrorKind::WriteZero)));
                    }
                    done += whole;
                }
                Ok(n) => done += n as usize,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (buf, Err(e)),
            }
        }
        (buf, Ok(()))
    }

    /// Fills the buffer (its length, a multiple of 4096) from `offset`. Answers how many bytes there were: fewer only
    /// at the file's end.
    pub async fn read_at(&self, mut buf: AlignedBuf, offset: u64) -> (AlignedBuf, io::Result<usize>) {
        assert_aligned(offset, buf.len());
        if self.driver.uring().is_none() {
            let file = Arc::clone(&self.file);
            return disk(move || {
                let result = read_full(&file, &mut buf, offset);
                (buf, result)
            })
            .await;
        }
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            let entry = opcode::Read::new(self.fd(), rest.as_mut_ptr(), rest.len() as u32)
                .offset(offset + done as u64)
                .build();
            // SAFETY: the operation holds the buffer and the file.
            let op = unsafe { RingOp::new(&self.driver, entry, (buf, Arc::clone(&self.file))) };
            let (result, (back, _)) = op.await;
            buf = back;
            match result {
                Ok(0) => break,
                Ok(n) if !(n as usize).is_multiple_of(BLOCK_BYTES) => {
                    done += n as usize;
                    break;
                }
                Ok(n) => done += n as usize,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (buf, Err(e)),
            }
        }
        (buf, Ok(done))
    }

    /// Makes everything written durable, the file's size included.
    ///
    /// # Errors
    /// Never retry: the kernel reports a lost write once.
    pub async fn sync(&self) -> io::Result<()> {
        if self.driver.uring().is_none() {
            let file = Arc::clone(&self.file);
            return disk(move || file.sync_all()).await;
        }
        let entry = opcode::Fsync::new(self.fd()).build();
        // SAFETY: the operation points to no memory and holds the file.
        let (result, _) = unsafe { RingOp::new(&self.driver, entry, Arc::clone(&self.file)) }.await;
        result.map(drop)
    }

    /// Makes the file exactly `bytes` long (a multiple of 4096), every block of it written with zeros and durable, so
    /// that later writes change no metadata: a durable write then costs half. Existing content is lost.
    pub async fn zero_fill(&self, bytes: u64) -> io::Result<()> {
        assert_aligned(bytes, 0);
        let file = Arc::clone(&self.file);
        unblock(move || {
            file.set_len(bytes)?;
            allocate(&file, bytes)
        })
        .await?;
        let mut chunk = AlignedBuf::zeroed(FILL_BYTES.min(bytes as usize));
        let mut at = 0;
        while at < bytes {
            chunk.resize((bytes - at).min(FILL_BYTES as u64) as usize);
            let n = chunk.len() as u64;
            let (back, result) = self.write_at(chunk, at).await;
            result?;
            chunk = back;
            at += n;
        }
        self.sync().await
    }

    /// The file's length, bytes.
    pub async fn len(&self) -> io::Result<u64> {
        let file = Arc::clone(&self.file);
        unblock(move || file.metadata().map(|m| m.len())).await
    }

    /// Cuts or lengthens the file; durable after [`File::sync`].
    pub async fn set_len(&self, bytes: u64) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        unblock(move || file.set_len(bytes)).await
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.file.as_raw_fd())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    Now,
    Later,
}

fn assert_aligned(offset: u64, len: usize) {
    let block = BLOCK_BYTES as u64;
    assert!(offset.is_multiple_of(block) && (len as u64).is_multiple_of(block), "disk operations are whole blocks");
}

fn open_direct(path: &Path, mode: OpenMode) -> io::Result<(std::fs::File, bool)> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).mode(0o600);
    match mode {
        OpenMode::Read => {}
        OpenMode::Write => drop(options.write(true)),
        OpenMode::CreateNew => drop(options.write(true).create_new(true)),
        OpenMode::CreateOrWrite => drop(options.write(true).create(true).truncate(false)),
    }
    match options.custom_flags(libc::O_DIRECT).open(path) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            // a refused O_DIRECT may have made the file already
            if mode == OpenMode::CreateNew {
                options.create_new(false).create(true);
            }
            options.custom_flags(0).open(path).map(|file| (file, false))
        }
        opened => opened.map(|file| (file, true)),
    }
}

fn read_full(file: &std::fs::File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                // direct IO cannot go on from within a block, and only the end of the file stops there
                if !n.is_multiple_of(BLOCK_BYTES) {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reserves the blocks in one go, so that they lie together and "no space" is known before the first write.
fn allocate(file: &std::fs::File, bytes: u64) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is open.
    if bytes > 0 && unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) } < 0 {
        let error = io::Error::last_os_error();
        // a file system without it allocates while zeros are written
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
    }
    Ok(())
}

/// Renames over `to`; durable after [`sync_dir`] of the directories.
pub async fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> io::Result<()> {
    let (from, to) = (from.into(), to.into());
    unblock(move || std::fs::rename(from, to)).await
}

/// Removes a file; durable after [`sync_dir`].
pub async fn remove(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    unblock(move || std::fs::remove_file(path)).await
}

/// Makes the names in a directory durable.
pub async fn sync_dir(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    unblock(move || std::fs::File::open(path)?.sync_all()).await
}

/// Whether an error means that there is no room, which an operator can mend.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// An operation on the ring and what it holds. Dropped early, it runs on and the ring keeps what it holds until then.
pub(super) struct RingOp<H> {
    driver: Rc<Driver>,
    slot: Option<u32>,
    holds: PhantomData<H>,
}

impl<H: 'static> RingOp<H> {
    /// Queues an operation.
    ///
    /// # Safety
    /// Every pointer and descriptor in `entry` belongs to something that `held` owns, at an address that does not
    /// change when `held` is moved.
    pub unsafe fn new(driver: &Rc<Driver>, entry: squeue::Entry, held: H) -> RingOp<H> {
        let ring = driver.uring().expect("ring operations are made on ring drivers only");
        // SAFETY: the caller's promise.
        let slot = unsafe { ring.start(entry, Box::new(held)) };
        driver.kick();
        RingOp { driver: Rc::clone(driver), slot: Some(slot), holds: PhantomData }
    }
}

impl<H> Unpin for RingOp<H> {}

impl<H: 'static> Future for RingOp<H> {
    /// The kernel's result and what was held.
    type Output = (io::Result<u32>, H);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = self.slot.expect("polled until ready, not after");
        let ring = self.driver.uring().expect("checked when it was made");
        let Poll::Ready((result, held)) = ring.poll_op(slot, cx) else { return Poll::Pending };
        self.slot = None;
        let held = *held.downcast::<H>().expect("holds what was given to it");
        let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) };
        Poll::Ready((result, held))
    }
}

impl<H> Drop for RingOp<H> {
    fn drop(&mut self) {
        if let (Some(slot), Some(ring)) = (self.slot, self.driver.uring()) {
            ring.abandon(slot);
        }
    }
}
