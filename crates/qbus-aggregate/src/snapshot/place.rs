//! Where a snapshot lies, and how others find it.
//!
//! Beside the bus, as a rule. An aggregator that is told to keep it elsewhere leaves a symbolic
//! link in that place, so that whoever knows the bus finds the snapshot (`Address::snapshot`), and
//! a removal of the bus takes it away too. The next aggregator that is told nothing follows it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use qbus::Address;

use super::file;

/// The place of a bus's snapshot.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// Beside the bus: what `path` is, or where the link to it belongs.
    link: PathBuf,
}

impl Place {
    /// The place that an aggregator was told, or the one that is known.
    pub(crate) fn of(address: &Address, told: Option<&Path>) -> Place {
        let link = address.snapshot_link();
        let Some(told) = told else {
            let path = address.snapshot();
            return Place { path, link };
        };
        // A relative path means nothing to others.
        let path = std::path::absolute(told).unwrap_or_else(|_| told.to_owned());
        if path == link {
            if is_link(&link) {
                // Back to where it belongs: the aggregator makes it there.
                let _ = fs::remove_file(&link);
            }
            return Place { path, link };
        }
        // A link of the user's own is followed, as anywhere else.
        let path = qbus::snapshot_at(&path);
        Place { path, link }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves a link, where one is needed. A snapshot that lies in its place is moved aside.
    pub(crate) fn make_known(&self) -> io::Result<()> {
        if self.path == self.link || fs::read_link(&self.link).is_ok_and(|to| to == self.path) {
            return Ok(());
        }
        match fs::symlink_metadata(&self.link) {
            Ok(found) if found.is_symlink() => fs::remove_file(&self.link)?,
            Ok(_) => {
                fs::rename(&self.link, file::beside(&self.link))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        std::os::unix::fs::symlink(&self.path, &self.link)
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}
