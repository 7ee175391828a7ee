//! The tables `obs` and `var` of an AnnData file as they are, for being copied: order, types, levels and missing values.

use rust_hdf5::DatatypeMessage;

use crate::data::formats::column::Column;
use crate::data::formats::frame::{Frame, FrameColumn, NumberWidth};
use crate::data::formats::h5ad::H5ad;
use crate::data::names::Names;
use crate::error::Result;

impl H5ad {
    /// The table `obs` or `var`, whose rows are called `names`. A column of an unusual kind is left out.
    ///
    /// # Errors
    /// [`InputError`](crate::error::InputError) if the table is damaged.
    pub(super) fn frame(&self, table: &str, names: Names) -> Result<Frame> {
        let mut keys = self.fields(table)?;
        if let Some(order) = self.stored_order(table) {
            let place = |key: &String| order.iter().position(|name| name == key).unwrap_or(order.len());
            keys.sort_by_key(place);
        }
        let column = |key: String| {
            let column = self.frame_column(table, &key).ok()?;
            (column.len() == names.len()).then_some((key, column))
        };
        let columns = keys.into_iter().filter_map(column).collect();
        let index = Some(self.index_name(table)?).filter(|name| !["_index", "index"].contains(&name.as_str()));
        Ok(Frame { index, names, columns })
    }

    fn frame_column(&self, table: &str, key: &str) -> Result<FrameColumn> {
        let name = format!("{table}/{key}");
        if self.hdf5().record_fields(table).is_some() {
            return Ok(as_stored(self.stored_column(table, key)?, None));
        }
        let has = |child: &str| self.has(&format!("{name}/{child}"));
        let levels = ["categories", "categories/values"].into_iter().find(|levels| has(levels));
        if let Some(levels) = levels.filter(|_| has("codes")) {
            let levels = self.stored_vector(&format!("{name}/{levels}"))?;
            let codes = self.hdf5().integers(&format!("{name}/codes"))?;
            return Ok(categorical(levels, codes, self.is_ordered(&name)));
        }
        if has("values") && has("mask") {
            let values = self.stored_vector(&format!("{name}/values"))?;
            if let Column::Flags(missing) = self.hdf5().plain_column(&format!("{name}/mask"))?
                && missing.len() == values.len()
            {
                // Text of which none is missing is plain text, which every version of AnnData reads.
                if matches!(values, FrameColumn::Strings(_)) && !missing.contains(&true) {
                    return Ok(values);
                }
                return Ok(FrameColumn::Nullable(Box::new(values), missing));
            }
        }
        let levels = format!("{table}/__categories/{key}");
        if self.has(&levels) {
            let ordered = self.is_ordered(&levels);
            return Ok(categorical(self.stored_vector(&levels)?, self.hdf5().integers(&name)?, ordered));
        }
        if self.has(&name) {
            return self.stored_vector(&name);
        }
        // Whatever else can be read as a column is copied as it is read.
        Ok(as_stored(self.stored_column(table, key)?, None))
    }

    /// Whether levels are ordered, as their attribute says, which is a truth value.
    fn is_ordered(&self, name: &str) -> bool {
        self.hdf5().attribute(name, "ordered").is_some_and(|value| value == "\u{1}")
    }

    fn stored_vector(&self, name: &str) -> Result<FrameColumn> {
        let dataset = self.hdf5().vector(name)?;
        let width = match self.hdf5().datatype(name, &dataset)? {
            DatatypeMessage::FixedPoint { signed, .. } => match (dataset.element_size(), signed) {
                (1, true) => Some(NumberWidth::I8),
                (2, true) => Some(NumberWidth::I16),
                (4, true) => Some(NumberWidth::I32),
                (1, false) => Some(NumberWidth::U8),
                (2, false) => Some(NumberWidth::U16),
                (4, false) => Some(NumberWidth::U32),
                (8, false) => Some(NumberWidth::U64),
                _ => None,
            },
            DatatypeMessage::FloatingPoint { .. } if dataset.element_size() <= 4 => Some(NumberWidth::F32),
            _ => None,
        };
        Ok(as_stored(self.hdf5().plain_column(name)?, width))
    }
}

/// Levels with the level of each row, those that are out of range being missing.
fn categorical(levels: FrameColumn, codes: Vec<i64>, ordered: bool) -> FrameColumn {
    let n_levels = levels.len() as i64;
    let codes = codes.into_iter().map(|code| if (0..n_levels).contains(&code) { code } else { -1 }).collect();
    FrameColumn::Levels(Box::new(levels), codes, ordered)
}

/// A column without any change, stored in numbers of `width`.
fn as_stored(column: Column, width: Option<NumberWidth>) -> FrameColumn {
    let column = match column {
        Column::Strings(values) => FrameColumn::Strings(values),
        other => FrameColumn::of(other),
    };
    match width {
        Some(width) => FrameColumn::Stored(width, Box::new(column)),
        None => column,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::formats::anndata_writer::AnnDataWriter;
    use crate::data::formats::screen_file::ScreenFile;

    fn tables(path: &Path) -> [Frame; 2] {
        let file = H5ad::open(path, None).unwrap();
        let cells = file.cell_names().unwrap().unwrap();
        let genes = file.gene_names().unwrap().unwrap();
        [file.cell_frame(cells).unwrap(), file.gene_frame(genes.into()).unwrap()]
    }

    #[test]
    fn tables_come_back_as_they_were() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/public/screen.h5ad");
        let [obs, var] = tables(&path);
        let names = |frame: &Frame| frame.columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ");
        let wanted = "z_first condition part/of missing_category missing_text drug guide blanks dose stimulated passed n_guides small \
                      single empty follows svae_batch";
        assert_eq!((obs.index.as_deref(), names(&obs).as_str()), (Some("cell_barcode"), wanted));
        assert_eq!(
            (var.index.as_deref(), names(&var).as_str(), var.names.len()),
            (Some("gene"), "gene_symbols feature_types", 9)
        );
        let column = |name: &str| &obs.columns.iter().find(|(known, _)| known == name).unwrap().1;
        let levels = FrameColumn::Numbers(vec![0.1, 1.0, 10.0]);
        assert!(
            matches!(column("dose"), FrameColumn::Levels(of, codes, true) if **of == levels && codes[..3] == [2, 0, 1])
        );
        assert!(
            matches!(column("stimulated"), FrameColumn::Levels(of, _, false) if matches!(**of, FrameColumn::Flags(_)))
        );
        assert!(
            matches!(column("passed"), FrameColumn::Nullable(_, missing) if missing.iter().position(|x| *x) == Some(2))
        );
        assert!(matches!(column("small"), FrameColumn::Stored(NumberWidth::U8, _)));
        assert!(matches!(column("single"), FrameColumn::Stored(NumberWidth::F32, _)));
        assert!(matches!(column("empty"), FrameColumn::Levels(of, codes, _) if of.len() == 0 && codes[0] == -1));

        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.h5ad");
        let file = AnnDataWriter::create(&copy).unwrap();
        file.array_f32("X", &[12, 9], &[1.0; 108]).unwrap();
        for (name, frame) in [("obs", &obs), ("var", &var)] {
            file.frame_with_index(name, (frame.index.as_deref(), &frame.names), &frame.columns).unwrap();
        }
        file.finish().unwrap();
        assert_eq!(tables(&copy), [obs, var]);
    }
}
