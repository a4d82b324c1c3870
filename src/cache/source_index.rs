//! Digests of files outside the cache, remembered by what `stat` says about them.
//!
//! One compact file for each tree: a header, one record of fixed size for each file, the names. An unchanged
//! tree costs one `stat` a file and nothing is read.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Layout, artifact::ContentHasher};
use crate::{
    digest::Digest,
    fs::{FileStat, FsError, Ignore, WalkedFile, files, walk},
    sys,
};

const MAGIC: [u8; 8] = *b"SPSRC\0\0\x01";

/// A file that was changed less than this before it was hashed may be changed again without any difference
/// in its times ("racily clean" in Git): its digest is not believed next time.
const CLOCK_TICK_NS: i64 = 20_000_000;
/// The same for file systems that keep whole seconds.
const COARSE_TICK_NS: i64 = 2_000_000_000;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    magic: [u8; 8],
    num_files: u64,
    /// Digest of the whole tree.
    tree: [u8; 32],
    /// Digest of everything after the header.
    checksum: [u8; 32],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Record {
    stat: FileStat,
    digest: [u8; 32],
    name_end: u64,
    trusted: u64,
}

/// What lies at a path outside the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceContent {
    /// Digest of names and contents.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// Number of files.
    pub num_files: u64,
    /// Bytes of all files.
    pub size: u64,
    /// How many of them had to be read.
    pub num_read: u64,
}

/// Digests of sources for one run: each tree is walked once, however many stages use it.
pub struct Sources {
    layout: Layout,
    known: Mutex<BTreeMap<(PathBuf, Ignore), SourceContent>>,
}

impl Sources {
    /// With the index in this cache.
    pub fn new(layout: Layout) -> Self {
        Self { layout, known: Mutex::default() }
    }

    /// What lies at `path`, walked now unless it was in this run before.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn content(&self, path: &Path, ignore: Ignore) -> Result<SourceContent, FsError> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(content) = known.get(&(path.to_path_buf(), ignore)) {
            return Ok(*content);
        }
        let content = scan(&self.layout, path, ignore)?;
        known.insert((path.to_path_buf(), ignore), content);
        Ok(content)
    }

    /// What lies at `path` now, whatever was there before.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn content_now(&self, path: &Path, ignore: Ignore) -> Result<SourceContent, FsError> {
        scan(&self.layout, path, ignore)
    }
}

/// Which files of a tree differ from another state of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeDiff {
    /// Files that are new.
    pub added: Vec<String>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// Files with another content.
    pub changed: Vec<String>,
}

impl TreeDiff {
    /// Compares two states by their digests; `None` if the list of files of either is not kept.
    pub fn load(layout: &Layout, old: &Digest, new: &Digest) -> Option<Self> {
        let read = |digest: &Digest| files::read_if_exists(&layout.source_tree(digest)).ok().flatten();
        let (old, new) = (read(old)?, read(new)?);
        let (old, new) = (Index::parse(&old)?, Index::parse(&new)?);
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let mut diff = Self::default();
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            let order = match (i < old.len(), j < new.len()) {
                (true, true) => old.name(i).cmp(new.name(j)),
                (true, false) => Ordering::Less,
                _ => Ordering::Greater,
            };
            match order {
                Ordering::Less => diff.removed.push(name(old.name(i))),
                Ordering::Greater => diff.added.push(name(new.name(j))),
                Ordering::Equal if old.record(i).digest != new.record(j).digest => diff.changed.push(name(new.name(j))),
                Ordering::Equal => {}
            }
            i += usize::from(order != Ordering::Greater);
            j += usize::from(order != Ordering::Less);
        }
        Some(diff)
    }
}

impl fmt::Display for TreeDiff {
    /// `2 added, 1 changed: sea/1.jpg, sea/2.jpg, …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let kinds = [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)];
        let kinds: Vec<_> = kinds.into_iter().filter(|(_, names)| !names.is_empty()).collect();
        let counts: Vec<_> = kinds.iter().map(|(word, names)| format!("{} {word}", names.len())).collect();
        let all: Vec<&str> = kinds.iter().flat_map(|(_, names)| names.iter().map(String::as_str)).collect();
        let dots = if all.len() > SHOWN { ", …" } else { "" };
        let shown: Vec<_> = all.into_iter().filter(|name| !name.is_empty()).take(SHOWN).collect();
        write!(f, "{}", counts.join(", "))?;
        if shown.is_empty() { Ok(()) } else { write!(f, ": {}{dots}", shown.join(", ")) }
    }
}

/// Digests of the files of a tree by name, where the list is kept. Names that are not UTF-8 are left out.
pub fn file_digests(layout: &Layout, tree: &Digest) -> Option<BTreeMap<String, Digest>> {
    let bytes = files::read_if_exists(&layout.source_tree(tree)).ok().flatten()?;
    let index = Index::parse(&bytes)?;
    let files = (0..index.len()).filter_map(|idx| {
        let name = std::str::from_utf8(index.name(idx)).ok()?;
        Some((name.to_owned(), Digest::from_bytes(index.record(idx).digest)))
    });
    Some(files.collect())
}

/// Walks a tree, hashes what the index does not know, and writes the index if that was anything.
fn scan(layout: &Layout, root: &Path, ignore: Ignore) -> Result<SourceContent, FsError> {
    let index_path = index_path(layout, root, ignore)?;
    let read_index = || files::read_if_exists(&index_path).ok().flatten().filter(|bytes| Index::parse(bytes).is_some());
    let (walked, old) = rayon::join(|| walk(root, ignore), read_index);
    let (walked, old) = (walked?, old.unwrap_or_default());
    let old = Index::cut(&old).unwrap_or_default();

    let mut known = Known { index: &old, at: 0 };
    let num_read = walked.iter().filter(|file| known.find(file).is_none()).count();
    let size = walked.iter().map(|file| file.stat.size).sum();
    let content = |digest| SourceContent { digest, num_files: walked.len() as u64, size, num_read: num_read as u64 };
    if num_read == 0 && old.len() == walked.len() {
        return Ok(content(Digest::from_bytes(old.header.tree)));
    }

    let mut known = Known { index: &old, at: 0 };
    let records: Vec<Option<Record>> = walked.iter().map(|file| known.find(file)).collect();
    let records = walked
        .par_iter()
        .zip(records)
        .map_init(Vec::new, |buffer, (file, known)| known.map_or_else(|| hash(root, file, buffer), Ok))
        .collect::<Result<Vec<_>, _>>()?;
    let mut hasher = ContentHasher::default();
    for (file, record) in walked.iter().zip(&records) {
        hasher.update(&file.name, Some(&Digest::from_bytes(record.digest)));
    }
    let tree = hasher.finish();
    // A cache that cannot be written makes the next run slower, not wrong.
    if files::write_atomic_unsynced(&index_path, &render(&walked, records, tree)).is_ok() {
        // The same bytes under the tree's digest say later which files differ. The index is replaced, never
        // written to, so the other name keeps them.
        let _ = files::hard_link(&index_path, &layout.source_tree(&tree));
    }
    Ok(content(tree))
}

/// Finds files in an index; asked for them in the order of their names.
struct Known<'a> {
    index: &'a Index<'a>,
    at: usize,
}

impl Known<'_> {
    /// The record of a file that has not been touched since.
    fn find(&mut self, file: &WalkedFile) -> Option<Record> {
        let Self { index, at } = self;
        while *at < index.len() && index.name(*at) < file.name.as_slice() {
            *at += 1;
        }
        if *at == index.len() || index.name(*at) != file.name {
            return None;
        }
        let known = index.record(*at);
        (known.trusted != 0 && known.stat == file.stat).then_some(known)
    }
}

fn hash(root: &Path, file: &WalkedFile, buffer: &mut Vec<u8>) -> Result<Record, FsError> {
    let started = sys::now_ns();
    let digest = match &file.dangling {
        Some(target) => Digest::of(&[b"dangling link to ", target.as_slice()].concat()),
        None => files::digest_file_of(&file.path(root), file.stat.size, buffer)?,
    };
    let changed = file.stat.mtime_ns.max(file.stat.ctime_ns);
    let coarse = file.stat.mtime_ns % 1_000_000_000 == 0 && file.stat.ctime_ns % 1_000_000_000 == 0;
    let tick = if coarse { COARSE_TICK_NS } else { CLOCK_TICK_NS };
    let trusted = u64::from(changed.saturating_add(tick) < started);
    Ok(Record { stat: file.stat, digest: *digest.as_bytes(), name_end: 0, trusted })
}

/// By device and number of the root, so that a moved project keeps its index.
fn index_path(layout: &Layout, root: &Path, ignore: Ignore) -> Result<PathBuf, FsError> {
    let meta = std::fs::metadata(root).map_err(FsError::at("read", root))?;
    let suffix = match ignore {
        Ignore::Nothing => "all",
        Ignore::HiddenAndDesktopFiles => "visible",
    };
    Ok(layout.sources().join(format!("{:x}-{:x}.{suffix}", meta.dev(), meta.ino())))
}

fn render(walked: &[WalkedFile], mut records: Vec<Record>, tree: Digest) -> Vec<u8> {
    let mut names = Vec::new();
    for (file, record) in walked.iter().zip(&mut records) {
        names.extend_from_slice(&file.name);
        record.name_end = names.len() as u64;
    }
    let records: &[u8] = bytemuck::cast_slice(&records);
    let mut checksum = blake3::Hasher::new();
    checksum.update(records).update(&names);
    let header = Header {
        magic: MAGIC,
        num_files: walked.len() as u64,
        tree: *tree.as_bytes(),
        checksum: *checksum.finalize().as_bytes(),
    };
    [bytemuck::bytes_of(&header), records, &names].concat()
}

/// A view of an index file.
struct Index<'a> {
    header: Header,
    records: &'a [u8],
    names: &'a [u8],
}

impl Default for Index<'_> {
    fn default() -> Self {
        Self { header: Header::zeroed(), records: &[], names: &[] }
    }
}

const RECORD: usize = size_of::<Record>();

impl<'a> Index<'a> {
    /// `None` if the bytes are no index or not whole.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let index = Self::cut(bytes)?;
        let body = &bytes[size_of::<Header>()..];
        (*blake3::hash(body).as_bytes() == index.header.checksum).then_some(index)
    }

    /// The same for bytes whose checksum is known to be right.
    fn cut(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(size_of::<Header>())?;
        let header: Header = bytemuck::pod_read_unaligned(head);
        let records_len = usize::try_from(header.num_files).ok()?.checked_mul(RECORD)?;
        let (records, names) = rest.split_at_checked(records_len)?;
        (header.magic == MAGIC).then_some(Self { header, records, names })
    }

    fn len(&self) -> usize {
        self.records.len() / RECORD
    }

    fn record(&self, idx: usize) -> Record {
        bytemuck::pod_read_unaligned(&self.records[idx * RECORD..(idx + 1) * RECORD])
    }

    fn name(&self, idx: usize) -> &'a [u8] {
        let start = if idx == 0 { 0 } else { self.record(idx - 1).name_end as usize };
        self.names.get(start..self.record(idx).name_end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread, time::Duration};

    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        layout: Layout,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path().join("cache"));
            layout.create().unwrap();
            let fixture = Self { dir, layout };
            fixture.write("a/1.png", "one");
            fixture.write("b/2.png", "two");
            fixture
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.root().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("data")
        }

        fn scan(&self) -> SourceContent {
            scan(&self.layout, &self.root(), Ignore::HiddenAndDesktopFiles).unwrap()
        }
    }

    fn let_the_clock_tick() {
        thread::sleep(Duration::from_millis(60));
    }

    #[test]
    fn an_unchanged_tree_is_not_read_again() {
        let fixture = Fixture::new();
        let_the_clock_tick();
        let first = fixture.scan();
        assert_eq!((first.num_files, first.size, first.num_read), (2, 6, 2));
        let second = fixture.scan();
        assert_eq!((second.digest, second.num_read), (first.digest, 0));
    }

    #[test]
    fn files_changed_just_before_are_read_again() {
        let fixture = Fixture::new();
        let_the_clock_tick();
        fixture.write("b/2.png", "TWO");
        fixture.scan();
        let_the_clock_tick();
        assert_eq!(fixture.scan().num_read, 1);
        assert_eq!(fixture.scan().num_read, 0);
    }

    #[test]
    fn every_kind_of_change_shows() {
        let fixture = Fixture::new();
        let mut seen = vec![fixture.scan().digest];
        fixture.write("b/2.png", "2wo");
        seen.push(fixture.scan().digest);
        fixture.write("b/3.png", "three");
        seen.push(fixture.scan().digest);
        fs::rename(fixture.root().join("b/3.png"), fixture.root().join("b/4.png")).unwrap();
        seen.push(fixture.scan().digest);
        fs::remove_file(fixture.root().join("a/1.png")).unwrap();
        seen.push(fixture.scan().digest);
        let mut unique = seen.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), seen.len());
    }

    #[test]
    fn touching_reads_but_changes_nothing() {
        let fixture = Fixture::new();
        let_the_clock_tick();
        let before = fixture.scan();
        fixture.write("a/1.png", "one");
        fixture.write("a/.DS_Store", "junk");
        let after = fixture.scan();
        assert_eq!((after.digest, after.num_read), (before.digest, 1));
    }

    #[test]
    fn a_damaged_index_is_ignored() {
        let fixture = Fixture::new();
        let_the_clock_tick();
        let before = fixture.scan();
        let path = index_path(&fixture.layout, &fixture.root(), Ignore::HiddenAndDesktopFiles).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[120] ^= 1;
        for bytes in [&whole[..whole.len() - 1], &flipped, b"x"] {
            fs::write(&path, bytes).unwrap();
            let after = fixture.scan();
            assert_eq!((after.digest, after.num_read), (before.digest, 2));
        }
    }

    #[test]
    fn two_states_are_compared_file_by_file() {
        let fixture = Fixture::new();
        let before = fixture.scan().digest;
        fixture.write("b/2.png", "2wo");
        fixture.write("b/3.png", "three");
        fs::remove_file(fixture.root().join("a/1.png")).unwrap();
        let after = fixture.scan().digest;
        let diff = TreeDiff::load(&fixture.layout, &before, &after).unwrap();
        assert_eq!(diff.to_string(), "1 added, 1 removed, 1 changed: b/3.png, a/1.png, b/2.png");
        assert_eq!(TreeDiff::load(&fixture.layout, &after, &after), Some(TreeDiff::default()));
        assert_eq!(TreeDiff::load(&fixture.layout, &Digest::of(b"x"), &after), None);
    }

    #[test]
    fn a_moved_tree_keeps_its_index() {
        let fixture = Fixture::new();
        let_the_clock_tick();
        let before = fixture.scan();
        let moved = fixture.dir.path().join("moved");
        fs::rename(fixture.root(), &moved).unwrap();
        let after = scan(&fixture.layout, &moved, Ignore::HiddenAndDesktopFiles).unwrap();
        assert_eq!((after.digest, after.num_read), (before.digest, 0));
    }
}
