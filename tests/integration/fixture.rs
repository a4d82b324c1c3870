//! A project in a temporary folder, and the program run in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A project in a temporary folder.
pub(crate) struct Project {
    dir: tempfile::TempDir,
}

/// What a call of the program left.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Called {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// Checks that stderr holds a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not in\n{}", self.stderr);
        self
    }

    /// Checks that stdout holds a text.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "`{text}` is not in\n{}", self.stdout);
        self
    }
}

impl Project {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Two stages: `count` writes the number of bytes of `words`, which copies `data/words.txt`. Each execution
    /// leaves a line in `executed.txt`.
    pub(crate) fn with_two_stages() -> Self {
        Self::new().write("data/words.txt", "one two three\n").write("pipelines/words.yaml", TWO_STAGES)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn write(self, name: &str, text: &str) -> Self {
        self.put(name, text);
        self
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Replaces a text in a file, which must be there.
    #[track_caller]
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "`{from}` is not in `{name}`");
        self.put(name, &text.replace(from, to));
    }

    /// Names of the stages executed since the last call, in order.
    pub(crate) fn executed(&self) -> Vec<String> {
        let names = self.read("executed.txt").lines().map(str::to_owned).collect();
        let _ = fs::remove_file(self.path("executed.txt"));
        names
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("simsiam-pipe"));
        command.current_dir(self.root()).args(args);
        for name in ["SIMSIAM_PIPE_CACHE", "NO_COLOR", "CI", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn call(&self, args: &[&str]) -> Called {
        self.finish(self.command(args).output().unwrap())
    }

    /// Folders, times and digests are different each time.
    pub(crate) fn finish(&self, output: Output) -> Called {
        let redact = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            redact(&text, &self.root())
        };
        Called {
            stdout: redact(output.stdout),
            stderr: redact(output.stderr),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Files in the cache's folder that are not complete.
    pub(crate) fn leftovers(&self) -> usize {
        ["tmp", "locks", "pins"].iter().map(|name| names(&self.path(".simsiam-pipe").join(name)).len()).sum()
    }
}

/// Names in a folder, sorted; the lock that everybody shares left out.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "gc")
        .collect();
    names.sort();
    names
}

fn redact(text: &str, root: &Path) -> String {
    let text = text.replace(root.to_str().unwrap(), "<root>");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = text.replace(&format!(" on {} ", host.trim()), " on <host> ");
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let words: Vec<String> = line.split(' ').map(redact_word).collect();
        out.push_str(&words.join(" "));
    }
    // `took 0.3 s`, `in 0.0 s`, `saved 0.3 s`
    let mut parts = out.split(" s").peekable();
    let mut redacted = String::new();
    while let Some(part) = parts.next() {
        let last = part.rsplit(' ').next().unwrap_or_default();
        if parts.peek().is_some() && last.parse::<f64>().is_ok() && last.contains('.') {
            redacted.push_str(&part[..part.len() - last.len()]);
            redacted.push_str("<time>");
        } else {
            redacted.push_str(part);
            if parts.peek().is_some() {
                redacted.push_str(" s");
            }
        }
    }
    redact_memory(&redacted)
}

/// `45.2 MiB of memory`
fn redact_memory(text: &str) -> String {
    let parts: Vec<&str> = text.split(" of memory").collect();
    let Some((last, before)) = parts.split_last() else { return text.to_owned() };
    let mut redacted = String::new();
    for part in before {
        let mut words: Vec<&str> = part.rsplitn(3, ' ').collect();
        words.reverse();
        redacted.push_str(words.first().copied().unwrap_or_default());
        redacted.push_str(" <size> of memory");
    }
    redacted + last
}

fn redact_word(word: &str) -> String {
    // A digest within a path.
    if word.contains('/') {
        let parts: Vec<String> = word.split('/').map(redact_word).collect();
        return parts.join("/");
    }
    let bare = word.trim_end_matches(['\n', ',', ')', ':']);
    let rest = &word[bare.len()..];
    let hex = bare.chars().all(|letter| letter.is_ascii_hexdigit());
    if hex && (bare.len() == 64 || bare.len() == 12) {
        format!("<digest>{rest}")
    } else if bare.len() == 20 && bare.ends_with('Z') && bare.contains('T') {
        format!("<moment>{rest}")
    } else {
        word.to_owned()
    }
}

const TWO_STAGES: &str = r#"version: 1
name: words
stages:
  words:
    uses: command
    with:
      run: [sh, -c, 'echo words >> executed.txt; cat data/words.txt > "$SIMSIAM_PIPE_OUTPUT/words.txt"']
      outputs: [words.txt]
      sources: [data/words.txt]
  count:
    uses: command
    inputs: { text: words }
    with:
      run: [sh, -c, 'echo count >> executed.txt; n=$(wc -w < "$SIMSIAM_PIPE_INPUT_TEXT/words.txt"); echo "{\"words\": $n}" > "$SIMSIAM_PIPE_OUTPUT/metrics.json"']
      outputs: [metrics.json]
"#;
