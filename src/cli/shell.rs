//! Arguments of `svae-cpu completions` and `svae-cpu man`.

use std::path::PathBuf;

/// Arguments of `svae-cpu completions`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = COMPLETIONS)]
pub struct CompletionsArgs {
    /// Shell that will read them
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

const COMPLETIONS: &str = "\
Examples:
  svae-cpu completions bash > ~/.local/share/bash-completion/completions/svae-cpu
  svae-cpu completions zsh > ~/.zfunc/_svae-cpu
  svae-cpu completions fish > ~/.config/fish/completions/svae-cpu.fish";

/// Arguments of `svae-cpu man`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = MAN)]
pub struct ManArgs {
    /// Folder that gets a page per subcommand (by default the main page goes to standard output)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

const MAN: &str = "\
Examples:
  svae-cpu man | man -l -                              read the main page
  svae-cpu man --out ~/.local/share/man/man1           install all pages";
