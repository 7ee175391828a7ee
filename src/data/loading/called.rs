//! What cells and genes are called: by the names of the file, by a column that was chosen, or as a model calls them.

use std::collections::HashSet;

use crate::data::formats::screen_file::ScreenFile;
use crate::data::names::{Names, without_version};
use crate::error::{InputError, Result};
use crate::words::{first_few, nearest};

/// Columns of the genes that usually hold names of them: identifiers, then symbols.
const USUAL_COLUMNS: [&str; 18] = [
    "gene_ids",
    "gene_id",
    "ensembl_id",
    "ensembl_ids",
    "ensembl",
    "ensembl_gene_id",
    "feature_id",
    "gene_name",
    "gene_names",
    "gene_symbols",
    "gene_symbol",
    "symbol",
    "symbols",
    "feature_name",
    "gene_short_name",
    "hgnc_symbol",
    "mgi_symbol",
    "gene",
];

/// Names of the cells of a file; numbered from 0 on where it has none.
///
/// # Errors
/// [`InputError`] if there are more or fewer than cells.
pub(crate) fn cell_names(file: &dyn ScreenFile, n_cells: usize) -> Result<Names> {
    let cells = file.cell_names()?.unwrap_or_else(|| (0..n_cells).map(|n| format!("cell_{n}")).collect());
    as_many(file, cells.len(), n_cells, "cell")?;
    Ok(cells)
}

fn as_many(file: &dyn ScreenFile, n_names: usize, n: usize, what: &str) -> Result<()> {
    if n_names == n {
        return Ok(());
    }
    let problem = format!("there are {n_names} names for {n} {what}s");
    Err(InputError::new(problem, "give one name each, or none at all").in_file(file.path()).into())
}

/// Names of the genes of a file.
pub(crate) struct GeneNames {
    /// What they are called; two may be called alike.
    pub names: Vec<String>,
    /// What else each of them is called, by usual columns.
    others: Vec<Vec<String>>,
    /// Their names in the file, where they are called otherwise.
    pub index: Option<Vec<String>>,
    /// Sentences on the choice.
    pub notes: Vec<String>,
}

impl GeneNames {
    /// The names of the `n_genes` genes: those of the column `chosen` if there is one, else by the column by which most of them
    /// are among `known` names, else those of the file. A gene without a name is called by another one that it has.
    ///
    /// # Errors
    /// [`InputError`] if there is no such column, or if there are more or fewer names than genes.
    pub fn read(file: &dyn ScreenFile, n_genes: usize, chosen: Option<&str>, known: &[String]) -> Result<Self> {
        let stored = file.gene_names()?;
        let numbered = stored.is_none();
        let index = stored.unwrap_or_else(|| (0..n_genes).map(|g| format!("gene_{g}")).collect());
        as_many(file, index.len(), n_genes, "gene")?;
        let mut columns = file.gene_columns()?;
        columns.retain(|(_, texts)| texts.len() == n_genes);
        let mut notes = Vec::new();
        let at = match chosen {
            Some(chosen) => Some(find_column(file, &columns, chosen)?),
            None if known.is_empty() => None,
            None => best_column(&index, &columns, known),
        };
        if let (Some(at), None) = (at, chosen) {
            notes.push(format!("genes are called as column `{}` of the genes has it, as in the model", columns[at].0));
        }
        let mut names = at.map_or_else(|| index.clone(), |at| columns[at].1.clone());
        let usual = |name: &str| USUAL_COLUMNS.contains(&name.to_lowercase().as_str());
        let index = at.map(|_| index);
        let mut others: Vec<Vec<String>> = index.iter().filter(|_| !numbered).cloned().collect();
        others.extend(columns.into_iter().filter(|(name, _)| usual(name)).map(|(_, texts)| texts));
        for (gene, name) in names.iter_mut().enumerate().filter(|(_, name)| name.trim().is_empty()) {
            let other = others.iter().map(|texts| &texts[gene]).find(|text| !text.trim().is_empty());
            *name = other.cloned().unwrap_or_else(|| format!("gene_{gene}"));
        }
        Ok(Self { names, others, index, notes })
    }

    /// All names of a gene.
    pub fn all(&self, gene: usize) -> impl Iterator<Item = &str> {
        let others = self.others.iter().map(move |texts| texts[gene].as_str());
        std::iter::once(self.names[gene].as_str()).chain(others).filter(|name| !name.is_empty())
    }
}

fn find_column(file: &dyn ScreenFile, columns: &[(String, Vec<String>)], chosen: &str) -> Result<usize> {
    if let Some(at) = columns.iter().position(|(name, _)| name == chosen) {
        return Ok(at);
    }
    let known: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let remedy = match (known.is_empty(), nearest(chosen, known.iter().copied())) {
        (true, _) => "leave out --gene-names: the file has one name for each gene".to_owned(),
        (false, Some(near)) => format!("did you mean `{near}`? the columns of text are {}", first_few(&known)),
        (false, None) => format!("the columns of text are {}", first_few(&known)),
    };
    let problem = format!("there is no column `{chosen}` of the genes, as --gene-names says");
    Err(InputError::new(problem, remedy).in_file(file.path()).into())
}

/// The usual column by which more genes are `known` than by the names `index`, if there is one.
fn best_column(index: &[String], columns: &[(String, Vec<String>)], known: &[String]) -> Option<usize> {
    let known: HashSet<&str> = known.iter().map(|name| without_version(name)).collect();
    let n_known = |names: &[String]| names.iter().filter(|name| known.contains(without_version(name))).count();
    let usual = |(name, _): &&(String, Vec<String>)| USUAL_COLUMNS.contains(&name.to_lowercase().as_str());
    let (mut best, mut most) = (None, n_known(index));
    for (at, texts) in
        columns.iter().enumerate().filter(|(_, column)| usual(column)).map(|(at, column)| (at, &column.1))
    {
        let n = n_known(texts);
        if n > most {
            (best, most) = (Some(at), n);
        }
    }
    best
}
