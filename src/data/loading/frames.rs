//! What a file and a table of labels say of cells and genes, as they say it, for being copied to the results.

use std::path::Path;

use crate::data::formats::column::Column;
use crate::data::formats::frame::{Frame, FrameColumn};
use crate::data::formats::labels::LabelTable;
use crate::data::formats::open;
use crate::data::loading::called::{GeneNames, cell_names};
use crate::data::loading::guards::make_unique;
use crate::data::loading::options::LoadOptions;

/// What a column is called that a table of labels has too.
const IN_FILE: &str = "_in_file";
/// What the names of the genes in the file are called, where they are called otherwise.
const VAR_NAMES: &str = "var_names";

/// The tables of cells and of genes of the file at `path`, read as `options` say; `None` where they cannot be read.
pub(crate) fn input_frames(path: &Path, options: &LoadOptions) -> Option<(Frame, Frame)> {
    let file = open(path, &options.for_opening()).ok()?;
    let (n_cells, n_genes) = file.shape().ok()?;
    let cells = cell_names(&*file, n_cells).ok()?;
    let table = match options.table_of_all() {
        Some(labels) => Some(LabelTable::read(labels, &cells, true).ok()?),
        None => None,
    };
    let mut obs = file.cell_frame(cells).ok()?;
    for name in table.iter().flat_map(|table| table.columns()) {
        let table = table.as_ref()?;
        if let Some((before, _)) = obs.columns.iter_mut().find(|(known, _)| known == name) {
            before.push_str(IN_FILE);
        }
        let column = table.column(name, false).ok().or_else(|| joined(table, name))?;
        obs.columns.push((name.clone(), FrameColumn::of(column)));
    }
    let mut genes = GeneNames::read(&*file, n_genes, options.gene_names.as_deref(), &[]).ok()?;
    make_unique(&mut genes.names);
    let mut var = file.gene_frame(genes.names.into()).ok()?;
    if let Some(index) = genes.index {
        var.columns.push((var.index.take().unwrap_or_else(|| VAR_NAMES.to_owned()), FrameColumn::Strings(index)));
    }
    Some((obs, var))
}

/// A column in which rows of the same cell differ: all values of each cell.
fn joined(table: &LabelTable, name: &str) -> Option<Column> {
    let values = table.all_values(name).ok()?;
    Some(Column::Strings(values.iter().map(|texts| texts.join("|")).collect()))
}
