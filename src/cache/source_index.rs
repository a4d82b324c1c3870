//! Digests of files outside the cache, remembered by what `stat` says about them.
//!
//! A tree is walked folder by folder, several at a time, and each folder is compared with its part of the index
//! (`tree_index.rs`): an unchanged tree costs one `stat` a file, nothing is read but the index, and no more is in
//! memory than the folders at work.

use std::{
    collections::BTreeMap,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Layout,
    tree_index::{BLOCK_FILES, BlockRef, IndexWriter, Record, TreeIndex},
};
use crate::{
    digest::Digest,
    fs::{FileStat, Folder, Found, FsError, Ignore, SubFolder, files, walk_folders},
    sys,
};

/// A file that was changed less than this before it was hashed may be changed again without any difference
/// in its times ("racily clean" in Git): its digest is not believed next time.
const CLOCK_TICK_NS: i64 = 20_000_000;
/// The same for file systems that keep whole seconds.
const COARSE_TICK_NS: i64 = 2_000_000_000;

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

/// Walks a tree, hashes what the index does not know, and writes the index if that was anything.
fn scan(layout: &Layout, root: &Path, ignore: Ignore) -> Result<SourceContent, FsError> {
    let meta = std::fs::metadata(root).map_err(FsError::at("read", root))?;
    let index_path = index_path(layout, root, ignore)?;
    let old = TreeIndex::open(&index_path);
    let scan = Scan { root, old: old.as_ref(), new: Mutex::new(IndexWriter::new(&index_path)) };
    let seen = if meta.is_dir() {
        walk_folders(root, ignore, &|folder| scan.visit(folder))?
    } else {
        vec![scan.visit_single_file(&FileStat::of(&meta))?]
    };
    let content = |tree| SourceContent {
        digest: tree,
        num_files: seen.iter().map(|folder| folder.num_files).sum(),
        size: seen.iter().map(|folder| folder.size).sum(),
        num_read: seen.iter().map(|folder| folder.num_read).sum(),
    };
    let same: Vec<usize> = seen.iter().filter_map(|folder| folder.same).collect();
    let num_folders = seen.iter().filter(|folder| folder.num_files > 0).count();
    if let Some(old) = &old
        && same.len() == num_folders
        && num_folders == old.num_folders()
    {
        return Ok(content(old.tree()));
    }
    let mut new = scan.new.into_inner().unwrap_or_else(PoisonError::into_inner);
    let at_index = FsError::at("read", &index_path);
    let written = same.iter().try_for_each(|&idx| old.as_ref().map_or(Ok(()), |old| new.copy(old, idx)));
    let (tree, is_written) = written.and_then(|()| new.finish()).map_err(at_index)?;
    if is_written {
        // The same bytes under the tree's digest say later which files differ. The index is replaced, never
        // written to, so the other name keeps them.
        let _ = files::hard_link(&index_path, &layout.source_tree(&tree));
    }
    Ok(content(tree))
}

/// A walk through a tree beside its index.
struct Scan<'a> {
    root: &'a Path,
    old: Option<&'a TreeIndex>,
    new: Mutex<IndexWriter>,
}

/// What was found in one folder, those below left out.
struct Seen {
    /// Where the old index has it, if that is what it still holds.
    same: Option<usize>,
    num_files: u64,
    size: u64,
    num_read: u64,
}

/// Some of a folder's files, and the block of the index that would hold them.
struct Run<'a> {
    files: Range<usize>,
    block: Option<&'a BlockRef>,
}

/// What became of a run.
#[derive(Default)]
struct Compared {
    /// Files that have not been touched, each with its place in the block.
    known: Vec<(u32, u32)>,
    new: Vec<NewFile>,
    folders: Vec<SubFolder>,
    size: u64,
}

struct NewFile {
    idx: usize,
    stat: FileStat,
    dangling: Option<Vec<u8>>,
}

impl Scan<'_> {
    fn visit(&self, folder: &Folder) -> Result<(Seen, Vec<SubFolder>), FsError> {
        let known = self.old.and_then(|old| old.find(folder.key()));
        let blocks = self.old.zip(known).map_or(&[][..], |(old, idx)| old.blocks(idx));
        let runs = runs(folder, blocks);
        let mut compared = runs
            .par_iter()
            .map_init(Vec::new, |buffer, run| self.compare(folder, run, buffer))
            .collect::<Result<Vec<_>, _>>()?;
        let below: Vec<SubFolder> = compared.iter_mut().flat_map(|run| std::mem::take(&mut run.folders)).collect();
        let num_known: u64 = compared.iter().map(|run| run.known.len() as u64).sum();
        let num_read: u64 = compared.iter().map(|run| run.new.len() as u64).sum();
        let size = compared.iter().map(|run| run.size).sum();
        let num_before: u64 = blocks.iter().map(BlockRef::num_files).sum();
        let same = known.filter(|_| num_read == 0 && num_known == num_before);
        let num_files = num_known + num_read;
        if same.is_none() && num_files > 0 {
            let records = runs
                .par_iter()
                .zip(compared)
                .map(|(run, compared)| self.records(folder, run, compared))
                .collect::<Result<Vec<_>, _>>()?;
            let files: Vec<(&[u8], Record)> =
                records.into_iter().flatten().map(|(idx, record)| (folder.name(idx), record)).collect();
            self.write(folder.key(), &files)?;
        }
        Ok((Seen { same, num_files, size, num_read }, below))
    }

    /// A tree that is a file: one without a name.
    fn visit_single_file(&self, stat: &FileStat) -> Result<Seen, FsError> {
        let known = self.old.and_then(|old| old.find(b""));
        let record = self.old.zip(known).and_then(|(old, idx)| {
            let mut buffer = Vec::new();
            let block = old.load(old.blocks(idx).first()?, &mut buffer).ok()?;
            (block.name(0).is_empty() && block.record(0).is_of(stat)).then_some(())
        });
        let same = known.filter(|_| record.is_some());
        if same.is_none() {
            let started = sys::now_ns();
            let digest = files::digest_file(self.root)?;
            self.write(b"", &[(b"", Record::new(stat.inode, *stat, digest, is_settled(stat, started)))])?;
        }
        Ok(Seen { same, num_files: 1, size: stat.size, num_read: u64::from(same.is_none()) })
    }

    fn write(&self, key: &[u8], files: &[(&[u8], Record)]) -> Result<(), FsError> {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        new.add_folder(key, files).map_err(FsError::at("read", self.root))
    }

    /// Looks at the files of a run and finds those that have not been touched.
    fn compare(&self, folder: &Folder, run: &Run<'_>, buffer: &mut Vec<u8>) -> Result<Compared, FsError> {
        let block = self.old.zip(run.block).and_then(|(old, block)| old.load(block, buffer).ok());
        let mut compared = Compared { known: Vec::with_capacity(run.files.len()), ..Compared::default() };
        let mut at = 0;
        for idx in run.files.clone() {
            match folder.look(idx)? {
                Found::File { stat, dangling } => {
                    compared.size += stat.size;
                    let place = block.as_ref().and_then(|block| {
                        let key = (folder.inode(idx), folder.name(idx));
                        while at < block.len() && (block.record(at).listed_inode, block.name(at)) < key {
                            at += 1;
                        }
                        let record = (at < block.len()).then(|| block.record(at))?;
                        ((record.listed_inode, block.name(at)) == key && record.is_of(&stat)).then_some(at)
                    });
                    match place {
                        Some(place) => compared.known.push((idx as u32, place as u32)),
                        None => compared.new.push(NewFile { idx, stat, dangling }),
                    }
                }
                Found::Folder { identity } => compared.folders.push(SubFolder { idx, identity }),
                Found::Nothing => {}
            }
        }
        Ok(compared)
    }

    /// The records of a run in the order of its files: those that are known, and new ones.
    fn records(&self, folder: &Folder, run: &Run<'_>, compared: Compared) -> Result<Vec<(usize, Record)>, FsError> {
        let mut records = compared
            .new
            .into_par_iter()
            .map_init(Vec::new, |buffer, file| Ok((file.idx, hash(folder, &file, buffer)?)))
            .collect::<Result<Vec<_>, FsError>>()?;
        if let (Some(old), Some(block), false) = (self.old, run.block, compared.known.is_empty()) {
            let mut buffer = Vec::new();
            let block = old.load(block, &mut buffer).map_err(FsError::at("read", self.root))?;
            let known = compared.known.iter().map(|&(idx, place)| (idx as usize, block.record(place as usize)));
            records.extend(known);
            records.sort_unstable_by_key(|(idx, _)| *idx);
        }
        Ok(records)
    }
}

/// Cuts a folder's files at the blocks of the index, or, where it has none, into pieces for several threads.
fn runs<'a>(folder: &Folder, blocks: &'a [BlockRef]) -> Vec<Run<'a>> {
    let mut runs = Vec::with_capacity(blocks.len().max(1));
    let mut start = 0;
    for (idx, block) in blocks.iter().enumerate() {
        let end = match blocks.get(idx + 1) {
            Some(next) => {
                let (mut low, mut high) = (start, folder.len());
                while low < high {
                    let middle = low.midpoint(high);
                    if folder.inode(middle) < next.first_inode() { low = middle + 1 } else { high = middle }
                }
                low
            }
            None => folder.len(),
        };
        runs.push(Run { files: start..end, block: Some(block) });
        start = end;
    }
    while start < folder.len() {
        let end = folder.len().min(start + BLOCK_FILES);
        runs.push(Run { files: start..end, block: None });
        start = end;
    }
    runs
}

fn hash(folder: &Folder, file: &NewFile, buffer: &mut Vec<u8>) -> Result<Record, FsError> {
    let started = sys::now_ns();
    let digest = if let Some(target) = &file.dangling {
        Digest::of(&[b"dangling link to ", target.as_slice()].concat())
    } else {
        let open = folder.open_file(file.idx)?;
        files::digest_open_file(open, &folder.path_of(file.idx), file.stat.size, buffer)?
    };
    Ok(Record::new(folder.inode(file.idx), file.stat, digest, is_settled(&file.stat, started)))
}

/// Whether a file was last changed so long before it was hashed that a later change shows in its times.
fn is_settled(stat: &FileStat, hashed: i64) -> bool {
    let changed = stat.mtime_ns.max(stat.ctime_ns);
    let coarse = stat.mtime_ns % 1_000_000_000 == 0 && stat.ctime_ns % 1_000_000_000 == 0;
    let tick = if coarse { COARSE_TICK_NS } else { CLOCK_TICK_NS };
    changed.saturating_add(tick) < hashed
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

#[cfg(test)]
mod tests {
    use std::{fs, thread, time::Duration};

    use super::*;
    use crate::{
        cache::{TreeDiff, artifact::ContentHasher, tree_diff::file_digests},
        fs::walk,
    };

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
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        // A damaged block costs its own files only; the first has place for one.
        let cases = [
            (whole[..whole.len() - 1].to_vec(), 2),
            (flipped(20), 2),
            (flipped(whole.len() - 1), 2),
            (flipped(140), 1),
            (b"x".to_vec(), 2),
        ];
        for (case, (bytes, num_read)) in cases.into_iter().enumerate() {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let after = fixture.scan();
            assert_eq!((after.digest, after.num_read), (before.digest, num_read), "case {case}");
            assert_eq!(fixture.scan().num_read, 0);
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

    /// What the digest is by definition: over the sorted list of all files.
    fn digest_by_definition(root: &Path) -> Digest {
        let mut hasher = ContentHasher::default();
        for file in walk(root, Ignore::HiddenAndDesktopFiles).unwrap() {
            hasher.update(&file.name, Some(&files::digest_file(&file.path(root)).unwrap()));
        }
        hasher.finish()
    }

    #[test]
    fn the_digest_is_that_of_the_sorted_list_of_all_files() {
        // Names around the `/` that stands between folder and file.
        const PARTS: [&str; 7] = ["a", "a-", "a.b", "a0", "a!", "b", "aa"];
        let mut rng = crate::seed::seeded_rng(7, "test", &[]);
        let mut draw = |below: usize| crate::seed::below(&mut rng, below as u64) as usize;
        for _ in 0..12 {
            let fixture = Fixture::new();
            let mut trees = vec![fixture.scan().digest];
            for _ in 0..6 {
                for _ in 0..draw(12) {
                    let depth = 1 + draw(4);
                    let name: Vec<&str> = (0..depth).map(|_| PARTS[draw(PARTS.len())]).collect();
                    let path = fixture.root().join(name.join("/"));
                    match draw(3) {
                        0 => drop(fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path))),
                        _ => drop(
                            fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(path, name.concat())),
                        ),
                    }
                }
                let digest = fixture.scan().digest;
                assert_eq!(digest, digest_by_definition(&fixture.root()));
                let (before, now) = (*trees.last().unwrap(), digest);
                trees.push(digest);
                let listed = file_digests(&fixture.layout, &now).unwrap();
                assert_eq!(listed.len(), walk(&fixture.root(), Ignore::HiddenAndDesktopFiles).unwrap().len());
                assert_eq!(TreeDiff::load(&fixture.layout, &before, &now) == Some(TreeDiff::default()), before == now);
            }
        }
    }

    #[test]
    fn a_folder_of_many_blocks_with_many_names_of_one_file_is_known_again() {
        let fixture = Fixture::new();
        let folder = fixture.root().join("many");
        for idx in 0..2 * BLOCK_FILES {
            fixture.write(&format!("many/{idx}"), "x");
        }
        for idx in 0..BLOCK_FILES {
            fs::hard_link(folder.join("7"), folder.join(format!("same{idx}"))).unwrap();
        }
        let_the_clock_tick();
        let first = fixture.scan();
        assert_eq!((first.num_read, first.digest), (first.num_files, digest_by_definition(&fixture.root())));
        assert_eq!((fixture.scan().num_read, fixture.scan().digest), (0, first.digest));
        fs::remove_file(folder.join("1500")).unwrap();
        fixture.write("many/new", "y");
        let_the_clock_tick();
        let after = fixture.scan();
        assert_eq!((after.num_read, after.digest), (1, digest_by_definition(&fixture.root())));
        assert_eq!(fixture.scan().num_read, 0);
    }

    #[test]
    fn a_tree_may_be_one_file_and_the_cache_need_not_be_there() {
        let fixture = Fixture::new();
        let file = fixture.root().join("a/1.png");
        let_the_clock_tick();
        let scan_file = |layout: &Layout| scan(layout, &file, Ignore::Nothing).unwrap();
        let first = scan_file(&fixture.layout);
        assert_eq!((first.num_files, first.size, first.num_read), (1, 3, 1));
        assert_eq!((scan_file(&fixture.layout).num_read, scan_file(&fixture.layout).digest), (0, first.digest));
        let nowhere = Layout::new(fixture.dir.path().join("nowhere"));
        assert_eq!((scan_file(&nowhere).num_read, scan_file(&nowhere).digest), (1, first.digest));
        let tree = scan(&nowhere, &fixture.root(), Ignore::HiddenAndDesktopFiles).unwrap();
        assert_eq!(tree.digest, fixture.scan().digest);
    }
}
