//! What was typed after `completions` and `man`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Print the completions of a shell.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  source <(qbus completions bash)\n  \
    qbus completions zsh > ~/.zfunc/_qbus\n  \
    qbus completions fish > ~/.config/fish/completions/qbus.fish")]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// A shell that completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the manual, a page for each command, into a folder; it is made where there is none.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus man ~/.local/share/man/man1 && man qbus-agg")]
pub(crate) struct Man {
    /// The folder, whose name ends with man1 where `man` is to find it.
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}
