//! How processes that no test is the parent of have ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A process's sign that it lives: a file that it takes away when it ends well, or right before it
/// kills itself. What stays is the sign of one that ended otherwise.
#[derive(Clone, Debug)]
pub struct Life {
    sign: PathBuf,
}

impl Life {
    /// Puts up the sign of a name that no other process has.
    pub fn begin(folder: &Path, name: &str) -> Life {
        let sign = folder.join(name);
        File::create_new(&sign).expect("a name of its own");
        Life { sign }
    }

    /// Takes the sign away; its process may end now.
    pub fn end(&self) {
        // Gone already when another thread of the process was about to kill it.
        let _ = fs::remove_file(&self.sign);
    }

    /// The names of those who ended, though nobody told them to.
    pub fn lost(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        };
        entries.map(name).collect()
    }
}
