//! What the definition of the command line gives besides the parser: completions for shells, and manual pages.

use std::path::Path;

use clap::CommandFactory;

use crate::cli::arguments::Cli;
use crate::error::{Error, InputError, Result};
use crate::system::files::write_atomically;

/// The completions of the program for a shell.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "svae-cpu", &mut text);
    String::from_utf8(text).expect("completions are text")
}

fn page(command: clap::Command) -> String {
    let mut text = Vec::new();
    // Into memory, where writing cannot fail.
    clap_mangen::Man::new(command).render(&mut text).expect("a page in memory");
    String::from_utf8(text).expect("a page is text")
}

/// The main manual page.
pub fn manual() -> String {
    page(Cli::command())
}

/// Writes the main page and one for each subcommand into `folder`, and returns their names.
///
/// # Errors
/// [`InputError`] if there is no such folder; [`Error::Io`].
pub fn write_manuals(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        let error = InputError::new("there is no such folder", "create it first").in_file(folder).at("--out");
        return Err(Error::from(error));
    }
    let mut command = Cli::command();
    command.build();
    let mut names = Vec::new();
    let mut write = |name: String, command: clap::Command| -> Result<()> {
        let text = page(command);
        write_atomically(&folder.join(&name), |file| std::io::Write::write_all(file, text.as_bytes()))?;
        names.push(name);
        Ok(())
    };
    write("svae-cpu.1".to_owned(), command.clone())?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        write(format!("svae-cpu-{}.1", subcommand.get_name()), subcommand.clone())?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_subcommand() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let text = completions(shell);
            for subcommand in Cli::command().get_subcommands() {
                assert!(text.contains(subcommand.get_name()), "{shell}: {}", subcommand.get_name());
            }
            assert!(text.contains("label-key"), "{shell}");
        }
    }

    #[test]
    fn there_is_a_page_for_the_program_and_for_each_subcommand() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = write_manuals(folder.path()).expect("written");
        assert_eq!(names.len(), Cli::command().get_subcommands().count() + 1);
        let run = std::fs::read_to_string(folder.path().join("svae-cpu-run.1")).expect("the page of run");
        assert!(run.contains("label\\-key") && run.contains(".TH svae-cpu-run"), "{run}");
        assert!(manual().contains(".SH SUBCOMMANDS"));
        assert!(write_manuals(&folder.path().join("nowhere")).is_err());
    }
}
