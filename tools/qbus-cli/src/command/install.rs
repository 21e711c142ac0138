//! `qbus completions` and `qbus man`: what a package has beside the command, from its arguments.

use std::fs;
use std::io::Write;

use clap::CommandFactory;
use clap_complete::aot::{Bash, Fish, Generator, Zsh};

use crate::args::{Args, Completions, Man, Shell};
use crate::error::{Doing, Error};

pub(crate) fn completions(completions: &Completions, out: &mut dyn Write) -> Result<(), Error> {
    let mut command = Args::command();
    command.set_bin_name("qbus");
    command.build();
    let mut text = Vec::new();
    match completions.shell {
        Shell::Bash => Bash.generate(&command, &mut text),
        Shell::Zsh => Zsh.generate(&command, &mut text),
        Shell::Fish => Fish.generate(&command, &mut text),
    }
    out.write_all(&text)?;
    Ok(())
}

pub(crate) fn man(man: &Man) -> Result<(), Error> {
    let folder = &man.folder;
    fs::create_dir_all(folder).doing(format!("make {}", folder.display()))?;
    // `help` says what the pages say.
    let command = Args::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder).doing(format!("write into {}", folder.display()))
}
