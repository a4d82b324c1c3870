//! `view`: reports and running pipelines in a browser.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use serde::Serialize;

use super::Session;
use crate::{
    cache::Layout,
    error::Error,
    fs::FsError,
    runner::Cancel,
    view::{Server, Site, serve},
};

/// Arguments of `view`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  simsiam-pipe view                       reports and runs of this project\n  \
                        simsiam-pipe view ~/reports --port 8080  reports in another folder")]
pub struct ViewArgs {
    /// Where to look for reports: a folder of them or of one [default: `runs/` of the project].
    #[arg(value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// The port to take on loopback [default: a free one].
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub port: u16,
}

#[derive(Serialize)]
struct Served {
    url: String,
}

/// Serves until it is stopped.
///
/// # Errors
/// When the folder is not there or the port cannot be taken, and when a signal ends it.
pub fn run(args: &ViewArgs, session: &Session) -> Result<(), Error> {
    let project = session.project()?;
    let layout = Layout::new(&project.cache_dir);
    let reports = args.folder.clone().unwrap_or_else(|| project.root.join("runs"));
    if let Some(folder) = args.folder.as_deref().filter(|folder| !folder.is_dir()) {
        let message = format!("there is no folder `{}`", folder.display());
        return Err(Error::usage(message, "name the folder of a report, or one with such folders in it"));
    }
    let site = Arc::new(Site::new(reports, Some(layout.objects()), Some(layout.live())));
    let cancel = Cancel::install().map_err(FsError::at("listen to signals in", &project.root))?;
    let address = format!("127.0.0.1:{}", args.port);
    let server = Server::bind(args.port).map_err(FsError::at("listen at", Path::new(&address)))?;
    if session.json() {
        session.print_json(&Served { url: server.url() })?;
    } else {
        session.print(&format!("{}\n", server.url()))?;
        session.note("Ctrl-C ends it");
    }
    thread::spawn(move || serve(&server, &site));
    loop {
        if let Some(signal) = cancel.signal() {
            return Err(Error::Stopped { signal });
        }
        thread::sleep(Duration::from_millis(50));
    }
}
