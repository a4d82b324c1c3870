//! The commit that a folder is at.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// The state of a git working tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitState {
    /// The commit.
    pub commit: String,
    /// Whether a tracked file differs from it.
    pub dirty: bool,
}

impl GitState {
    /// The state of the tree around `folder`, files in `without` left out; `None` where there is no git, no
    /// repository or no commit yet.
    pub fn of(folder: &Path, without: &[&Path]) -> Option<Self> {
        let commit = git(folder, &["rev-parse", "--verify", "--quiet", "HEAD"])?;
        // Names are taken as they are, whatever characters they hold.
        let without: Vec<_> = without.iter().map(|path| format!(":(exclude,literal){}", path.display())).collect();
        let status = ["status", "--porcelain", "--untracked-files=no", "--", ":(top)"];
        let all = [&status, &without.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
        // A name outside the tree is an error to git, and differs from nothing in it.
        let changes = git(folder, &all).or_else(|| git(folder, &status))?;
        Some(Self { commit, dirty: !changes.is_empty() })
    }
}

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        // Looks only: whoever works there at the moment must not find a lock.
        .args(["--no-optional-locks", "-C"])
        .arg(folder)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn commit_and_changes_are_seen_and_left_out_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let run = |args: &[&str]| {
            let named = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
            let status = Command::new("git").arg("-C").arg(dir.path()).args(named).args(args).output().unwrap().status;
            assert!(status.success());
        };
        assert_eq!(GitState::of(dir.path(), &[]), None);
        run(&["init", "--quiet"]);
        assert_eq!(GitState::of(dir.path(), &[]), None);
        fs::create_dir(dir.path().join("p")).unwrap();
        let (code, lock) = (dir.path().join("code.py"), dir.path().join("p/[1].lock"));
        fs::write(&code, "1").unwrap();
        fs::write(&lock, "1").unwrap();
        run(&["add", "."]);
        run(&["commit", "--quiet", "-m", "x"]);
        let clean = GitState::of(dir.path(), &[]).unwrap();
        assert!(clean.commit.len() >= 40 && !clean.dirty);
        fs::write(&lock, "2").unwrap();
        fs::write(dir.path().join("new.txt"), "").unwrap();
        assert!(GitState::of(dir.path(), &[]).unwrap().dirty);
        assert_eq!(GitState::of(dir.path(), &[&lock]), Some(clean.clone()));
        assert_eq!(GitState::of(&dir.path().join("p"), &[&lock]), Some(clean));
        fs::write(&code, "2").unwrap();
        assert!(GitState::of(dir.path(), &[&lock]).unwrap().dirty);
    }
}
