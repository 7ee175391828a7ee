//! What tells a screen from any other: its size, and a checksum of its contents.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::data::dataset::Dataset;
use crate::error::Result;

/// A screen in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataIdentity {
    /// Number of cells.
    pub cells: usize,
    /// Number of genes.
    pub genes: usize,
    /// Number of interventions.
    pub interventions: usize,
    /// XXH3-64 over counts, size factors, interventions, covariates, names, guides and, of a simulation, the truth.
    pub checksum: String,
}

/// Bytes summed up at a time.
const BLOCK: usize = 1 << 16;

/// What tells this screen from any other.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn identity(data: &Dataset) -> Result<DataIdentity> {
    // Without `..`: a new part of a screen is thought of here. Its source is a name and no part of its contents.
    let Dataset {
        source: _,
        counts,
        library,
        interventions,
        intervention_names,
        gene_names,
        cell_names,
        covariates,
        guides,
        truth,
    } = data;
    let mut sum = Checksum { sum: Xxh3::new(), waiting: Vec::with_capacity(BLOCK + 64) };
    let all: Vec<usize> = (0..counts.n_cells()).collect();
    counts.visit(&all, |n, row| {
        sum.number(row.len() as u64);
        row.for_each(|gene, count| sum.number((gene as u64) << 32 | u64::from(count)));
        sum.number(library[n].to_bits());
        let (numbers, doses) = interventions.row(n);
        sum.number(numbers.len() as u64);
        numbers.iter().zip(doses).for_each(|(&a, dose)| sum.number(u64::from(a) << 32 | u64::from(dose.to_bits())));
    })?;
    sum.names(intervention_names);
    sum.names(gene_names);
    sum.names(cell_names);
    for column in &covariates.categorical {
        sum.names(std::slice::from_ref(&column.name));
        sum.names(&column.levels);
        column.codes.iter().for_each(|&code| sum.number(u64::from(code)));
    }
    for column in &covariates.continuous {
        sum.names(std::slice::from_ref(&column.name));
        column.values.iter().for_each(|value| sum.number(value.to_bits()));
    }
    if let Some(guides) = guides {
        sum.names(std::slice::from_ref(&guides.name));
        sum.names(&guides.names);
        guides.codes.iter().for_each(|code| sum.number(code.map_or(u64::MAX, u64::from)));
    }
    if let Some(truth) = truth {
        sum.number(truth.n_latents as u64);
        truth.latents.iter().chain(&truth.prior_means).for_each(|value| sum.number(value.to_bits()));
        truth.escaped.iter().for_each(|&escaped| sum.number(u64::from(escaped)));
        for interaction in &truth.interactions {
            interaction.members.iter().for_each(|&a| sum.number(u64::from(a)));
            interaction.deviation.iter().for_each(|value| sum.number(value.to_bits()));
        }
    }
    Ok(DataIdentity {
        cells: data.n_cells(),
        genes: data.n_genes(),
        interventions: data.n_interventions(),
        checksum: format!("{:016x}", sum.finish()),
    })
}

/// A checksum of numbers and names.
struct Checksum {
    sum: Xxh3,
    waiting: Vec<u8>,
}

impl Checksum {
    #[inline]
    fn number(&mut self, number: u64) {
        self.waiting.extend_from_slice(&number.to_le_bytes());
        if self.waiting.len() >= BLOCK {
            self.sum.update(&self.waiting);
            self.waiting.clear();
        }
    }

    fn names<'a, S: AsRef<str> + ?Sized + 'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a S, IntoIter: ExactSizeIterator>,
    ) {
        let names = names.into_iter();
        self.number(names.len() as u64);
        for name in names.map(AsRef::as_ref) {
            self.number(name.len() as u64);
            self.waiting.extend_from_slice(name.as_bytes());
            // Names alone do not end a block, and there may be many.
            if self.waiting.len() >= BLOCK {
                self.sum.update(&self.waiting);
                self.waiting.clear();
            }
        }
    }

    fn finish(mut self) -> u64 {
        self.sum.update(&self.waiting);
        self.sum.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Guides;
    use crate::data::simulate::small_screen as screen;

    #[test]
    fn any_change_of_the_data_changes_their_checksum() {
        let whole = identity(&screen(1)).expect("in memory");
        assert_eq!(whole, identity(&Dataset { source: "elsewhere".to_owned(), ..screen(1) }).expect("in memory"));
        let changed: [fn(&mut Dataset); 7] = [
            |data| data.library[7] += 1.0,
            |data| data.gene_names[3].push('x'),
            |data| {
                data.cell_names =
                    data.cell_names.select(&[&[1, 0], &(2..data.n_cells()).collect::<Vec<_>>()[..]].concat())
            },
            |data| data.intervention_names.swap(0, 1),
            |data| data.counts = data.counts.select(&(1..data.n_cells()).chain([0]).collect::<Vec<_>>()).into(),
            |data| data.truth.as_mut().expect("simulated").latents[0] += 1.0,
            |data| data.guides = Some(Guides { codes: vec![None; data.n_cells()], ..Guides::default() }),
        ];
        for (i, change) in changed.into_iter().enumerate() {
            let mut data = screen(1);
            change(&mut data);
            assert_ne!(identity(&data).expect("in memory").checksum, whole.checksum, "change {i}");
        }
    }
}
