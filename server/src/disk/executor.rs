//! Carries disk operations out: log writes one after another, each durable before the next; segments, chunks and
//! manifests in order among themselves, beside the log.

use super::directory::identity_bytes;
use crate::rt::{self, AlignedBuf, File, OpenMode};
use ringfence_node::raft::{DiskFault, DiskOp, OpId, SegmentNo, log};
use ringfence_node::{FileFault, FileOp};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What an executor reports.
pub enum Done {
    /// A log operation.
    Disk(OpId, Result<(), DiskFault>),
    /// A file operation that is reported.
    File(u64, Result<(), FileFault>),
}

/// Where completions go: called on the core of the executor.
pub type Report = Rc<dyn Fn(Done)>;

/// Executes operations, in order.
pub trait Executor {
    /// Takes a log operation.
    fn disk(&self, op: DiskOp);
    /// Takes a file operation.
    fn file(&self, op: FileOp);
}

/// No disk at all: everything succeeds at once and is gone with the process.
pub struct MemoryExecutor {
    report: Report,
}

impl MemoryExecutor {
    /// Reports to `report`.
    pub fn new(report: Report) -> MemoryExecutor {
        MemoryExecutor { report }
    }
}

impl Executor for MemoryExecutor {
    fn disk(&self, op: DiskOp) {
        (self.report)(Done::Disk(op.id(), Ok(())));
    }

    fn file(&self, op: FileOp) {
        match op {
            FileOp::WriteChunk { id, .. } | FileOp::WriteManifest { id, .. } => (self.report)(Done::File(id, Ok(()))),
            FileOp::WriteIdentity { .. } | FileOp::RemoveChunk { .. } => {}
        }
    }
}

/// A data directory on this core.
pub struct DirExecutor {
    state: Rc<State>,
}

struct State {
    path: PathBuf,
    report: Report,
    writes: Queue<DiskOp>,
    beside: Queue<Beside>,
    files: RefCell<BTreeMap<SegmentNo, Rc<File>>>,
    slots: RefCell<Option<Rc<File>>>,
    buffer: RefCell<Option<AlignedBuf>>,
    /// Set while the identity must still be written: no vote before a name.
    identity: RefCell<Option<Vec<u8>>>,
}

enum Beside {
    Disk(DiskOp),
    File(FileOp),
}

/// Operations waiting, and whether a task works on them.
struct Queue<T> {
    waiting: RefCell<VecDeque<T>>,
    running: RefCell<bool>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { waiting: RefCell::default(), running: RefCell::new(false) }
    }
}

impl<T> Queue<T> {
    /// Adds an operation; true if a worker must be started.
    fn push(&self, op: T) -> bool {
        self.waiting.borrow_mut().push_back(op);
        !self.running.replace(true)
    }

    fn next(&self) -> Option<T> {
        let op = self.waiting.borrow_mut().pop_front();
        if op.is_none() {
            self.running.replace(false);
        }
        op
    }
}

impl DirExecutor {
    /// Over a directory that this process holds.
    pub fn new(path: &Path, report: Report) -> DirExecutor {
        DirExecutor {
            state: Rc::new(State {
                path: path.to_owned(),
                report,
                writes: Queue::default(),
                beside: Queue::default(),
                files: RefCell::default(),
                slots: RefCell::default(),
                buffer: RefCell::default(),
                identity: RefCell::default(),
            }),
        }
    }

    fn beside(&self, op: Beside) {
        if self.state.beside.push(op) {
            let state = self.state.clone();
            rt::spawn_local(async move {
                while let Some(op) = state.beside.next() {
                    state.perform_beside(op).await;
                }
            });
        }
    }
}

impl Executor for DirExecutor {
    fn disk(&self, op: DiskOp) {
        match op {
            DiskOp::PrepareSegment { .. } | DiskOp::RemoveSegment { .. } => self.beside(Beside::Disk(op)),
            DiskOp::WriteLog { .. } | DiskOp::WriteSlot { .. } => {
                if self.state.writes.push(op) {
                    let state = self.state.clone();
                    rt::spawn_local(async move {
                        while let Some(op) = state.writes.next() {
                            let id = op.id();
                            let result = state.write(op).await;
                            (state.report)(Done::Disk(id, result));
                        }
                    });
                }
            }
        }
    }

    fn file(&self, op: FileOp) {
        match op {
            // kept until the first write of the log: a directory with a vote has a name
            FileOp::WriteIdentity { cluster, raft_id } => {
                *self.state.identity.borrow_mut() = Some(identity_bytes(cluster, raft_id));
            }
            other => self.beside(Beside::File(other)),
        }
    }
}

impl State {
    fn segment_path(&self, no: SegmentNo) -> PathBuf {
        self.path.join(format!("log/{:016}.seg", no.0))
    }

    async fn write(&self, op: DiskOp) -> Result<(), DiskFault> {
        let identity = self.identity.borrow_mut().take();
        if let Some(bytes) = identity {
            replace(&self.path, "identity", bytes).await.map_err(|e| fault("identity", &e))?;
        }
        let (file, offset, bytes) = match op {
            DiskOp::WriteLog { segment, offset, bytes, .. } => {
                (self.segment(segment).await.map_err(|e| fault("log", &e))?, offset, bytes)
            }
            DiskOp::WriteSlot { offset, bytes, .. } => {
                (self.slots().await.map_err(|e| fault("slots", &e))?, offset, bytes)
            }
            DiskOp::PrepareSegment { .. } | DiskOp::RemoveSegment { .. } => return Ok(()),
        };
        let mut buffer = self.buffer.borrow_mut().take().unwrap_or_else(|| AlignedBuf::with_capacity(bytes.len()));
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        let (buffer, result) = file.write_at_durable(buffer, offset).await;
        *self.buffer.borrow_mut() = Some(buffer);
        result.map_err(|e| fault("log", &e))
    }

    async fn segment(&self, no: SegmentNo) -> io::Result<Rc<File>> {
        if let Some(f) = self.files.borrow().get(&no) {
            return Ok(f.clone());
        }
        let file = Rc::new(File::open(self.segment_path(no), OpenMode::Write).await?);
        let mut files = self.files.borrow_mut();
        // only the newest segments are written
        while files.len() >= 2 {
            files.pop_first();
        }
        files.insert(no, file.clone());
        Ok(file)
    }

    async fn slots(&self) -> io::Result<Rc<File>> {
        if let Some(f) = &*self.slots.borrow() {
            return Ok(f.clone());
        }
        let path = self.path.join("slots");
        if !path.exists() {
            replace(&self.path, "slots", vec![0; log::slots::FILE_BYTES]).await?;
        }
        let file = Rc::new(File::open(path, OpenMode::Write).await?);
        *self.slots.borrow_mut() = Some(file.clone());
        Ok(file)
    }

    async fn perform_beside(&self, op: Beside) {
        match op {
            Beside::Disk(op) => {
                let id = op.id();
                let result = match op {
                    DiskOp::PrepareSegment { segment, size, recycle, .. } => {
                        self.prepare(segment, size, recycle).await
                    }
                    DiskOp::RemoveSegment { segment, .. } => {
                        self.files.borrow_mut().remove(&segment);
                        self.remove(segment).await
                    }
                    DiskOp::WriteLog { .. } | DiskOp::WriteSlot { .. } => Ok(()),
                };
                let result =
                    result.map_err(|e| if rt::is_no_space(&e) { DiskFault::Full } else { fault("segment", &e) });
                (self.report)(Done::Disk(id, result));
            }
            Beside::File(FileOp::WriteChunk { id, chunk, bytes }) => {
                let (dir, name) = (self.path.join("checkpoint"), format!("{chunk}.chunk"));
                let done = rt::background(move || replace_now(&dir, &name, &bytes)).await;
                (self.report)(Done::File(id, done.map_err(|e| file_fault(&e))));
            }
            Beside::File(FileOp::WriteManifest { id, bytes }) => {
                let done = replace(&self.path.join("checkpoint"), "manifest", bytes).await;
                (self.report)(Done::File(id, done.map_err(|e| file_fault(&e))));
            }
            Beside::File(FileOp::RemoveChunk { chunk }) => {
                // a chunk left behind costs space only
                let _ = rt::remove(self.path.join(format!("checkpoint/{chunk}.chunk"))).await;
            }
            Beside::File(FileOp::WriteIdentity { .. }) => {}
        }
    }

    async fn prepare(&self, no: SegmentNo, size: u64, recycle: Option<SegmentNo>) -> io::Result<()> {
        let target = self.segment_path(no);
        match recycle {
            Some(old) => {
                self.files.borrow_mut().remove(&old);
                rt::rename(self.segment_path(old), target).await?;
            }
            None => {
                let unfinished = self.path.join(format!("log/{:016}.new", no.0));
                let made = async {
                    let file = File::open(unfinished.clone(), OpenMode::CreateOrWrite).await?;
                    file.zero_fill(size).await?;
                    file.sync().await?;
                    rt::rename(unfinished.clone(), target).await
                }
                .await;
                if let Err(e) = made {
                    let _ = rt::remove(unfinished).await;
                    return Err(e);
                }
            }
        }
        rt::sync_dir(self.path.join("log")).await
    }

    async fn remove(&self, no: SegmentNo) -> io::Result<()> {
        match rt::remove(self.segment_path(no)).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }?;
        rt::sync_dir(self.path.join("log")).await
    }
}

/// As [`replace_now`], on a helper.
async fn replace(dir: &Path, name: &str, bytes: Vec<u8>) -> io::Result<()> {
    let (dir, name) = (dir.to_owned(), name.to_owned());
    rt::unblock(move || replace_now(&dir, &name, &bytes)).await
}

/// Writes a file under another name, makes it durable, renames it, makes the name durable.
fn replace_now(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let (new, target) = (dir.join(format!("{name}.new")), dir.join(name));
    let written = (|| {
        let mut f = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        f.write_all(bytes)?;
        f.sync_all()?;
        std::fs::rename(&new, &target)?;
        std::fs::File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

fn fault(what: &str, e: &io::Error) -> DiskFault {
    crate::telemetry::log(crate::telemetry::Level::Error, &format!("{what}: durable write failed: {e}"));
    DiskFault::Io
}

fn file_fault(e: &io::Error) -> FileFault {
    if rt::is_no_space(e) { FileFault::Full } else { FileFault::Io(e.to_string()) }
}
