//! What is known about the files of a tree outside the cache, in a file that is read in pieces.
//!
//! ```text
//! header                 digest of the tree, where the table is, checksum
//! block, block, …        records of fixed size in the order in which a folder is looked at, then their names
//! table                  folders in the order of their paths, each with its blocks
//! ```
//!
//! Each block has a checksum, so that one is enough to go on. Who writes holds no more than a folder in memory.

use std::{
    fs::File,
    io::{self, Write as _},
    mem,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytemuck::{Pod, Zeroable};

use super::artifact::ContentHasher;
use crate::{
    digest::Digest,
    fs::{FileStat, ReplacingFile},
};

const MAGIC: [u8; 8] = *b"SPSRC\0\0\x02";
/// Files of a block; more only where they are names of one file.
pub(super) const BLOCK_FILES: usize = 1024;
/// So much is collected before it is written.
const WRITE_BYTES: usize = 1 << 20;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    magic: [u8; 8],
    num_folders: u64,
    table_offset: u64,
    table_len: u64,
    /// Digest of the whole tree.
    tree: [u8; 32],
    /// Digest of all other fields and the table.
    checksum: [u8; 32],
}

impl Header {
    fn sealed(mut self, table: &[u8]) -> Self {
        self.checksum = [0; 32];
        self.checksum = *Digest::of_all(&[bytemuck::bytes_of(&self), table]).as_bytes();
        self
    }
}

/// What is known about a file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Record {
    /// The number that its folder lists for it: the order of records.
    pub(super) listed_inode: u64,
    stat: FileStat,
    digest: [u8; 32],
    name_end: u32,
    trusted: u32,
}

impl Record {
    /// `trusted` says whether `stat` tells a later change of the content.
    pub(super) fn new(listed_inode: u64, stat: FileStat, digest: Digest, trusted: bool) -> Self {
        Self { listed_inode, stat, digest: *digest.as_bytes(), name_end: 0, trusted: u32::from(trusted) }
    }

    /// Whether a file of which `stat` says this still has the content.
    pub(super) fn is_of(&self, stat: &FileStat) -> bool {
        self.trusted != 0 && self.stat == *stat
    }
}

/// Where a block is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct BlockRef {
    first_inode: u64,
    offset: u64,
    num_files: u32,
    names_len: u32,
    checksum: [u8; 32],
}

impl BlockRef {
    /// The smallest number that is listed for one of its files.
    pub(super) fn first_inode(&self) -> u64 {
        self.first_inode
    }

    /// How many files it holds.
    pub(super) fn num_files(&self) -> u64 {
        u64::from(self.num_files)
    }

    fn len(&self) -> usize {
        self.num_files as usize * size_of::<Record>() + self.names_len as usize
    }

    fn load<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        read: impl FnOnce(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Block<'b>> {
        buffer.resize(self.len(), 0);
        read(buffer, self.offset)?;
        if *Digest::of(buffer).as_bytes() != self.checksum {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a block of the index is damaged"));
        }
        let (records, names) = buffer.split_at(self.num_files as usize * size_of::<Record>());
        Ok(Block { records, names })
    }
}

/// Records with their names.
pub(super) struct Block<'a> {
    records: &'a [u8],
    names: &'a [u8],
}

impl<'a> Block<'a> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.records.len() / size_of::<Record>()
    }

    /// A record.
    pub(super) fn record(&self, idx: usize) -> Record {
        let start = idx * size_of::<Record>();
        bytemuck::pod_read_unaligned(&self.records[start..start + size_of::<Record>()])
    }

    /// Its name in the folder.
    pub(super) fn name(&self, idx: usize) -> &'a [u8] {
        let start = if idx == 0 { 0 } else { self.record(idx - 1).name_end as usize };
        self.names.get(start..self.record(idx).name_end as usize).unwrap_or_default()
    }
}

/// A folder that holds files.
#[derive(Debug)]
struct IndexedFolder {
    /// Its path below the root with a `/` at the end; empty for the root.
    key: Vec<u8>,
    blocks: Vec<BlockRef>,
}

/// An index on disk. Only the table is in memory.
#[derive(Debug)]
pub(super) struct TreeIndex {
    file: File,
    tree: Digest,
    folders: Vec<IndexedFolder>,
}

impl TreeIndex {
    /// `None` where there is none, or none that is whole.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let mut header = Header::zeroed();
        file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0).ok()?;
        if header.magic != MAGIC || header.table_offset.checked_add(header.table_len)? != len {
            return None;
        }
        let mut table = vec![0; usize::try_from(header.table_len).ok()?];
        file.read_exact_at(&mut table, header.table_offset).ok()?;
        if header.sealed(&table).checksum != header.checksum {
            return None;
        }
        let folders = parse_table(&table)?;
        (folders.len() as u64 == header.num_folders).then_some(Self {
            file,
            tree: Digest::from_bytes(header.tree),
            folders,
        })
    }

    /// Digest of the tree.
    pub(super) fn tree(&self) -> Digest {
        self.tree
    }

    /// How many folders hold files.
    pub(super) fn num_folders(&self) -> usize {
        self.folders.len()
    }

    /// Where the folder with this path is.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        self.folders.binary_search_by(|folder| folder.key.as_slice().cmp(key)).ok()
    }

    /// The blocks of a folder.
    pub(super) fn blocks(&self, folder: usize) -> &[BlockRef] {
        &self.folders[folder].blocks
    }

    /// Reads a block into `buffer`.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(super) fn load<'b>(&self, block: &BlockRef, buffer: &'b mut Vec<u8>) -> io::Result<Block<'b>> {
        block.load(buffer, |bytes, offset| self.file.read_exact_at(bytes, offset))
    }

    /// Calls `each` with path and digest of every file, in the order of the paths.
    ///
    /// # Errors
    /// When a block cannot be read or is damaged.
    pub(super) fn for_each_file(&self, each: impl FnMut(&[u8], Digest)) -> io::Result<()> {
        in_order(&self.folders, |bytes, offset| self.file.read_exact_at(bytes, offset), each)
    }
}

/// An index being written, to a file that replaces the older one or, where that cannot be, to memory: the digest of the
/// tree is needed in any case.
pub(super) struct IndexWriter {
    path: PathBuf,
    sink: Sink,
    /// How much the sink has taken.
    written: u64,
    pending: Vec<u8>,
    folders: Vec<IndexedFolder>,
}

enum Sink {
    /// Nothing was written yet.
    None,
    File(ReplacingFile),
    Memory(Vec<u8>),
}

impl IndexWriter {
    /// Will write to `path`; nothing is done before there is something to write.
    pub(super) fn new(path: &Path) -> Self {
        let pending = vec![0; size_of::<Header>()];
        Self { path: path.to_path_buf(), sink: Sink::None, written: 0, pending, folders: Vec::new() }
    }

    /// Adds the files of a folder, given in the order in which it is looked at.
    ///
    /// # Errors
    /// When what was written cannot be read back from a disk that is full.
    pub(super) fn add_folder(&mut self, key: &[u8], files: &[(&[u8], Record)]) -> io::Result<()> {
        let mut blocks = Vec::with_capacity(files.len().div_ceil(BLOCK_FILES));
        let mut rest = files;
        while !rest.is_empty() {
            let mut len = rest.len().min(BLOCK_FILES);
            // Blocks are found by number: names of one file stay together.
            while len < rest.len() && rest[len].1.listed_inode == rest[len - 1].1.listed_inode {
                len += 1;
            }
            let (block, after) = rest.split_at(len);
            rest = after;
            blocks.push(self.add_block(block)?);
        }
        self.folders.push(IndexedFolder { key: key.to_vec(), blocks });
        Ok(())
    }

    fn add_block(&mut self, files: &[(&[u8], Record)]) -> io::Result<BlockRef> {
        let names_len: usize = files.iter().map(|(name, _)| name.len()).sum();
        let mut bytes = Vec::with_capacity(mem::size_of_val(files) + names_len);
        let mut name_end = 0;
        for (name, record) in files {
            name_end += name.len() as u32;
            bytes.extend_from_slice(bytemuck::bytes_of(&Record { name_end, ..*record }));
        }
        for (name, _) in files {
            bytes.extend_from_slice(name);
        }
        let block = BlockRef {
            first_inode: files.first().map_or(0, |(_, record)| record.listed_inode),
            offset: self.offset(),
            num_files: files.len() as u32,
            names_len: name_end,
            checksum: *Digest::of(&bytes).as_bytes(),
        };
        self.append(&bytes)?;
        Ok(block)
    }

    /// Adds a folder as another index has it.
    ///
    /// # Errors
    /// When it cannot be read there.
    pub(super) fn copy(&mut self, old: &TreeIndex, folder: usize) -> io::Result<()> {
        let IndexedFolder { key, blocks } = &old.folders[folder];
        let mut copied = Vec::with_capacity(blocks.len());
        let mut bytes = Vec::new();
        for block in blocks {
            old.load(block, &mut bytes)?;
            copied.push(BlockRef { offset: self.offset(), ..*block });
            self.append(&bytes)?;
        }
        self.folders.push(IndexedFolder { key: key.clone(), blocks: copied });
        Ok(())
    }

    /// Writes table and header and shows the file. Returns the digest of the tree, and whether there is a file now.
    ///
    /// # Errors
    /// When what was written cannot be read back.
    pub(super) fn finish(mut self) -> io::Result<(Digest, bool)> {
        self.folders.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let table_offset = self.offset();
        let table = render_table(&self.folders);
        self.append(&table)?;
        self.flush()?;
        let mut hasher = ContentHasher::default();
        in_order(
            &self.folders,
            |bytes, offset| self.sink.read_exact_at(bytes, offset),
            |name, digest| hasher.update(name, Some(&digest)),
        )?;
        let tree = hasher.finish();
        let header = Header {
            magic: MAGIC,
            num_folders: self.folders.len() as u64,
            table_offset,
            table_len: table.len() as u64,
            tree: *tree.as_bytes(),
            checksum: [0; 32],
        };
        let header = header.sealed(&table);
        let is_written = match self.sink {
            Sink::File(file) => file.write_all_at(bytemuck::bytes_of(&header), 0).and_then(|()| file.persist()).is_ok(),
            Sink::None | Sink::Memory(_) => false,
        };
        Ok((tree, is_written))
    }

    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() < WRITE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        if matches!(self.sink, Sink::None) {
            // A cache that cannot be written makes the next run slower, not wrong.
            self.sink = ReplacingFile::for_path(&self.path).map_or_else(|_| Sink::Memory(vec![]), Sink::File);
        }
        if let Sink::File(file) = &mut self.sink
            && file.write_all(&self.pending).is_err()
        {
            let mut bytes = vec![0; self.written as usize];
            file.read_exact_at(&mut bytes, 0)?;
            self.sink = Sink::Memory(bytes);
        }
        if let Sink::Memory(bytes) = &mut self.sink {
            bytes.extend_from_slice(&self.pending);
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Sink {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(bytes, offset),
            Self::Memory(all) => {
                let start = offset as usize;
                let found = all.get(start..start + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                bytes.copy_from_slice(found);
                Ok(())
            }
            Self::None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn render_table(folders: &[IndexedFolder]) -> Vec<u8> {
    let mut table = Vec::new();
    for IndexedFolder { key, blocks } in folders {
        table.extend_from_slice(&(key.len() as u32).to_le_bytes());
        table.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        table.extend_from_slice(key);
        table.extend_from_slice(bytemuck::cast_slice(blocks));
    }
    table
}

fn parse_table(mut table: &[u8]) -> Option<Vec<IndexedFolder>> {
    let mut folders = Vec::new();
    while !table.is_empty() {
        let (lengths, rest) = table.split_at_checked(8)?;
        let [key_len, num_blocks]: [u32; 2] = bytemuck::pod_read_unaligned(lengths);
        let (key, rest) = rest.split_at_checked(key_len as usize)?;
        let (blocks, rest) = rest.split_at_checked((num_blocks as usize).checked_mul(size_of::<BlockRef>())?)?;
        let blocks = blocks.chunks_exact(size_of::<BlockRef>()).map(bytemuck::pod_read_unaligned).collect();
        folders.push(IndexedFolder { key: key.to_vec(), blocks });
        table = rest;
    }
    Some(folders)
}

/// The files of a folder that stand before those of folders below it, or after.
struct Level<'a> {
    key: &'a [u8],
    /// By name, the last first.
    files: Vec<(Vec<u8>, Digest)>,
}

/// Calls `each` with path and digest of every file in the order of the paths: that of the whole tree in one list. In
/// memory are the folders on the way from the root to the one at hand.
fn in_order(
    folders: &[IndexedFolder],
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    mut each: impl FnMut(&[u8], Digest),
) -> io::Result<()> {
    let (mut path, mut buffer) = (Vec::new(), Vec::new());
    // Those of a level that come before `end`, or all.
    let mut pass = |level: &mut Level<'_>, end: Option<&[u8]>| {
        while let Some((name, digest)) = level.files.pop() {
            path.clear();
            path.extend_from_slice(level.key);
            path.extend_from_slice(&name);
            if end.is_some_and(|end| path.as_slice() > end) {
                level.files.push((name, digest));
                break;
            }
            each(&path, digest);
        }
    };
    let mut levels: Vec<Level<'_>> = Vec::new();
    for IndexedFolder { key, blocks } in folders {
        while let Some(level) = levels.last_mut() {
            if key.starts_with(level.key) {
                pass(level, Some(key));
                break;
            }
            pass(level, None);
            levels.pop();
        }
        let mut files = Vec::new();
        for block in blocks {
            let block = block.load(&mut buffer, &read)?;
            files.extend(
                (0..block.len()).map(|idx| (block.name(idx).to_vec(), Digest::from_bytes(block.record(idx).digest))),
            );
        }
        files.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        levels.push(Level { key, files });
    }
    while let Some(mut level) = levels.pop() {
        pass(&mut level, None);
    }
    Ok(())
}
