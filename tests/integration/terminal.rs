//! What a terminal gets: colours and moving lines, unless the environment asks for something quieter.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{FromRawFd as _, OwnedFd},
    process::Stdio,
    ptr,
};

use crate::fixture::Project;

/// Both ends of a new terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: both numbers are written before it returns 0, and no name, mode or size is asked for.
    let opened =
        unsafe { libc::openpty(&raw mut ours, &raw mut theirs, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) };
    assert_eq!(opened, 0);
    // SAFETY: both are open and nobody else has them.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// What the program shows on a terminal in this environment.
fn shown(project: &Project, args: &[&str], environment: &[(&str, &str)]) -> String {
    let (mut ours, theirs) = terminal();
    let mut command = project.command(args);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color").envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut bytes = vec![];
    // Once nobody has the other end, reading fails.
    let _ = ours.read_to_end(&mut bytes);
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

/// Whether a text chooses colours or weights: `ESC [ … m`.
fn has_style(text: &str) -> bool {
    text.split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[test]
fn the_environment_decides_about_colours_and_moving_lines() {
    let project = Project::with_two_stages();
    project.put("wrong.yaml", "version: 1\nname: wrong\nstages:\n  a: { uses: nothing }\n");
    let calls: [&[&str]; 6] = [
        &["run", "--no-cache"],
        &["run"],
        &["run", "wrong.yaml"],
        &["plan"],
        &["--help"],
        &["run", "--no-such-option"],
    ];
    for args in calls {
        let usual = shown(&project, args, &[]);
        assert!(has_style(&usual), "{args:?}: {usual:?}");
        let without = shown(&project, args, &[("NO_COLOR", "1")]);
        assert!(!has_style(&without) && !without.is_empty(), "{args:?}: {without:?}");
        for plain in [("CI", "true"), ("TERM", "dumb")] {
            let text = shown(&project, args, &[plain]);
            assert!(!text.contains(['\x1b', '\r']) && !text.is_empty(), "{args:?} {plain:?}: {text:?}");
        }
        let asked = shown(&project, &[args, &["--color", "always"]].concat(), &[("NO_COLOR", "1")]);
        assert!(has_style(&asked), "{args:?}: {asked:?}");
        let refused = shown(&project, &[args, &["--color", "never"]].concat(), &[]);
        assert!(!has_style(&refused), "{args:?}: {refused:?}");
    }
}
