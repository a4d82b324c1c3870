//! Images that the command line names, through a network in batches: folders, files and lists on stdin.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{
    data::decode::{DecodeOptions, OwnedImage, decode_with},
    error::Error,
    eval::{
        EvalError,
        model_artifact::{ImageNetwork, ImageScratch, ModelArtifact},
    },
    fs::FsError,
};

/// Names that count as images in a folder; a file named by the user is tried whatever its name.
const EXTENSIONS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// Which images a command is about.
#[derive(Clone, Debug, clap::Args)]
pub struct ImageArgs {
    /// Images, folders of images with all folders below, or `-` for paths on stdin, one a line.
    #[arg(required = true, value_name = "IMAGE|FOLDER|-")]
    pub inputs: Vec<PathBuf>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageSummary {
    /// Images that were embedded.
    pub done: u64,
    /// Images and folders that could not be used; each was named on `err`. Where there are any, the command must not
    /// exit as if all were well.
    pub failed: u64,
}

impl ImageSummary {
    /// How the command ends.
    ///
    /// # Errors
    /// Where some images could not be used.
    pub fn check(self) -> Result<(), Error> {
        let Self { done, failed } = self;
        if failed == 0 { Ok(()) } else { Err(Error::ImagesFailed { failed, total: done + failed }) }
    }
}

/// Runs a command on stdin, stdout and stderr of the process.
///
/// # Errors
/// Where the command fails, or some images could not be used.
pub(super) fn on_terminal(
    command: impl FnOnce(&mut dyn Read, &mut dyn Write, &mut dyn Write) -> Result<ImageSummary, Error>,
) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    command(&mut io::stdin().lock(), &mut out, &mut io::stderr())?.check()
}

/// A reader that may go away, as `head` does, while a file is still to be finished: what follows is dropped.
pub(super) struct UntilClosed<'a> {
    out: &'a mut dyn Write,
    closed: bool,
}

impl<'a> UntilClosed<'a> {
    /// Nobody has gone yet.
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, closed: false }
    }

    fn unless_closed<T>(&mut self, dropped: T, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
        if self.closed {
            return Ok(dropped);
        }
        match write(self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(dropped)
            }
            result => result,
        }
    }
}

impl Write for UntilClosed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), |out| out.flush())
    }
}

/// Opens the artifact after `--model` or `--in`.
///
/// # Errors
/// Where it holds no network or cannot be used.
pub(super) fn open_model(dir: &Path) -> Result<ModelArtifact, Error> {
    ModelArtifact::open(dir).map_err(|error| match error {
        EvalError::NoModel { .. } => {
            Error::usage(error.to_string(), "give the folder of such a stage, such as `runs/intel/probe`")
        }
        source => unusable(dir, source),
    })
}

/// A model that cannot be used.
pub(super) fn unusable(dir: &Path, source: EvalError) -> Error {
    Error::Model { path: dir.to_owned(), source }
}

/// What writing to stdout comes to.
///
/// # Errors
/// The error, as the program reports it.
pub(super) fn written<T>(result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::BrokenPipe,
        _ => FsError { action: "write", path: "stdout".into(), source: error }.into(),
    })
}

/// An image that was read.
pub(super) struct EmbeddedImage {
    /// As it was named.
    pub(super) path: PathBuf,
    /// As an `ingest` stage would have stored it, where that is asked for.
    pub(super) stored: Option<OwnedImage>,
}

/// Images, and their embeddings [n, feature_dim].
pub(super) type EmbeddedBatch = (Vec<EmbeddedImage>, Vec<f32>);

/// Images and their embeddings, a batch at a time; memory does not grow with their number or size.
pub(super) struct ImageStream<'a> {
    queue: PathQueue<'a>,
    network: &'a ImageNetwork,
    model: &'a Path,
    keep_images: bool,
    err: &'a mut dyn Write,
    views: Vec<f32>,
    summary: ImageSummary,
}

impl<'a> ImageStream<'a> {
    /// The images that `inputs` name; `stdin` is read where one is `-`, what cannot be used is named on `err`.
    pub(super) fn new(
        inputs: &[PathBuf],
        network: &'a ImageNetwork,
        model: &'a Path,
        stdin: &'a mut dyn Read,
        err: &'a mut dyn Write,
    ) -> Self {
        let queue = PathQueue::new(inputs, stdin);
        let views = vec![0.0; network.batch_size() * network.view_len()];
        Self { queue, network, model, keep_images: false, err, views, summary: ImageSummary::default() }
    }

    /// The same with the images themselves.
    pub(super) fn keeping_images(mut self) -> Self {
        self.keep_images = true;
        self
    }

    /// What was done so far.
    pub(super) fn summary(&self) -> ImageSummary {
        self.summary
    }

    /// The next images with their embeddings [n, feature_dim]; `None` at the end.
    ///
    /// # Errors
    /// Where stdin cannot be read or the network fails.
    pub(super) fn next_batch(&mut self) -> Result<Option<EmbeddedBatch>, Error> {
        let Self { queue, network, views, keep_images, .. } = self;
        let (network, keep_images) = (*network, *keep_images);
        let batch = queue.next_batch(network.batch_size()).map_err(|source| FsError {
            action: "read",
            path: "stdin".into(),
            source,
        })?;
        if batch.is_empty() {
            return Ok(None);
        }
        let (view_len, options) = (network.view_len(), network.decode_options());
        // Decoded in parallel, reported in order. Of an image only the view is kept, unless more is asked for.
        let read: Vec<Result<EmbeddedImage, String>> = batch
            .par_iter()
            .zip(views.par_chunks_exact_mut(view_len))
            .map_init(ImageScratch::default, |scratch, (entry, view)| {
                let path = entry.as_ref().map_err(String::clone)?;
                let stored = network.view(decode(path, &options)?, scratch, view);
                Ok(EmbeddedImage { path: path.clone(), stored: keep_images.then_some(stored) })
            })
            .collect();
        let mut images = vec![];
        for (place, image) in read.into_iter().enumerate() {
            match image {
                Ok(image) => {
                    views.copy_within(place * view_len..(place + 1) * view_len, images.len() * view_len);
                    images.push(image);
                }
                Err(reason) => {
                    self.summary.failed += 1;
                    // Where even stderr is gone there is nobody left to tell.
                    let _ = writeln!(self.err, "{reason}");
                }
            }
        }
        self.summary.done += images.len() as u64;
        if images.is_empty() {
            return Ok(Some((images, vec![])));
        }
        let features =
            network.embed(&views[..images.len() * view_len]).map_err(|source| unusable(self.model, source))?;
        Ok(Some((images, features)))
    }
}

fn decode(path: &Path, options: &DecodeOptions) -> Result<OwnedImage, String> {
    let problem = |reason: String| format!("`{}`: {reason}", path.display());
    let bytes = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    decode_with(&bytes, options).map_err(problem)
}

/// A path, or why there is none to look at.
type Entry = Result<PathBuf, String>;

/// Paths of images in the order of the inputs, a batch at a time.
struct PathQueue<'a> {
    inputs: VecDeque<PathBuf>,
    pending: VecDeque<Entry>,
    stdin: BufReader<&'a mut dyn Read>,
    reading_stdin: bool,
}

impl<'a> PathQueue<'a> {
    fn new(inputs: &[PathBuf], stdin: &'a mut dyn Read) -> Self {
        let inputs = inputs.iter().cloned().collect();
        Self { inputs, pending: VecDeque::new(), stdin: BufReader::new(stdin), reading_stdin: false }
    }

    /// The next paths, at most `max`; none at the end. Does not wait for stdin while it has some.
    fn next_batch(&mut self, max: usize) -> io::Result<Vec<Entry>> {
        let mut batch = vec![];
        while batch.len() < max {
            if let Some(entry) = self.pending.pop_front() {
                batch.push(entry);
            } else if self.reading_stdin {
                if !batch.is_empty() && !self.stdin.buffer().contains(&b'\n') {
                    break;
                }
                let mut line = vec![];
                self.reading_stdin = self.stdin.read_until(b'\n', &mut line)? > 0;
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches(['\n', '\r']);
                if !text.is_empty() {
                    self.expand(PathBuf::from(text));
                }
            } else if let Some(input) = self.inputs.pop_front() {
                if input.as_os_str() == "-" {
                    self.reading_stdin = true;
                } else {
                    self.expand(input);
                }
            } else {
                break;
            }
        }
        Ok(batch)
    }

    fn expand(&mut self, path: PathBuf) {
        if !path.is_dir() {
            return self.pending.push_back(Ok(path));
        }
        let before = self.pending.len();
        self.walk(&path);
        if self.pending.len() == before {
            self.pending.push_back(Err(format!("`{}`: no images in this folder", path.display())));
        }
    }

    /// Sorted, files and folders alike; hidden ones are left out, and links to folders are not followed, so
    /// that a circle of links ends.
    fn walk(&mut self, dir: &Path) {
        let listed = std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.pending.push_back(Err(format!("`{}`: {error}", dir.display()))),
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&path);
            } else if is_image_name(&path) && !path.is_dir() {
                self.pending.push_back(Ok(path));
            }
        }
    }
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_is_answered_before_it_ends() {
        /// Gives one line at a time.
        struct Slow(Vec<&'static [u8]>);
        impl Read for Slow {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let Some(line) = self.0.pop() else { return Ok(0) };
                out[..line.len()].copy_from_slice(line);
                Ok(line.len())
            }
        }
        let mut stdin = Slow(vec![b"c.png\n", b"a.png\nb.png\n"]);
        let mut queue = PathQueue::new(&[PathBuf::from("first.png"), PathBuf::from("-")], &mut stdin);
        let mut next =
            || queue.next_batch(8).unwrap().into_iter().map(|e| e.unwrap().display().to_string()).collect::<Vec<_>>();
        assert_eq!(next(), ["first.png"]);
        assert_eq!(next(), ["a.png", "b.png"]);
        assert_eq!(next(), ["c.png"]);
        assert!(next().is_empty());
    }
}
