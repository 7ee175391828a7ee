//! The section with the settings, from which the run can be repeated.

use crate::results::page::folder::Run;
use crate::results::page::svg::escape;

/// The settings as text, and the command that uses them.
pub(super) fn settings(run: &Run) -> String {
    format!(
        "<p>Save the text below as <code>config.toml</code> (it is the file of that name in the results folder), then</p>\n\
         <pre>svae-cpu run config.toml --out repeated</pre>\n\
         <p>gives the same weights on the same machine, whatever the number of threads.</p>\n\
         <pre>{}</pre>\n",
        escape(&run.config_text)
    )
}
