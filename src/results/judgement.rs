//! The judgement of predictions as files: figures, tables, and the pair of files that the program cell-eval reads.

use std::io::Write;

use crate::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};
use crate::display::json::to_json;
use crate::error::Result;
use crate::evaluation::predictions::judge::{JudgedCells, PredictionJudgement};
use crate::evaluation::predictions::profiles::LogExpression;
use crate::evaluation::predictions::scores::Score;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;

/// Columns of the table of combinations that are not the sum of their members.
const NON_ADDITIVE_COLUMNS: [&str; 9] =
    ["combination", "n_cells", "held_out", "effect", "deviation", "noise", "p_value", "q_value", "non_additive"];
/// Column of the labels, and that of control cells, in the files for cell-eval.
const LABELS: (&str, &str) = ("perturbation", "control");

impl ResultsFolder {
    /// Writes the figures of a judgement, its scores by combination and its table of combinations that are not additive.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_judgement(&self, judgement: &PredictionJudgement) -> Result<()> {
        let header: Vec<&str> = ["combination", "n_cells", "predictor"]
            .into_iter()
            .chain(Score::ALL.iter().map(|score| score.name()))
            .collect();
        let number = |value: f64| if value.is_finite() { value.to_string() } else { String::new() };
        self.write_csv(ResultsFile::JudgementScores, &header, &judgement.combinations, |found| {
            let mut row = vec![found.combination.clone(), found.n_cells.to_string(), found.predictor.to_owned()];
            row.extend(found.scores.iter().map(|&score| number(score)));
            row
        })?;
        self.write_csv(ResultsFile::NonAdditive, &NON_ADDITIVE_COLUMNS, &judgement.non_additive, |found| {
            let numbers = [found.effect, found.deviation, found.noise, found.p_value, found.q_value].map(number);
            let mut row = vec![found.combination.clone(), found.n_cells.to_string(), found.held_out.to_string()];
            row.extend(numbers);
            row.push(found.non_additive.to_string());
            row
        })?;
        self.write(ResultsFile::Judgement, |file| writeln!(file, "{}", to_json(judgement)))
    }

    /// Writes observed and predicted cells, each with the same control cells, as cell-eval reads them.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_judged_cells(&self, cells: &JudgedCells, genes: &[String]) -> Result<()> {
        for (file, judged) in
            [(ResultsFile::CellEvalReal, &cells.observed), (ResultsFile::CellEvalPrediction, &cells.predicted)]
        {
            if !self.writes() {
                continue;
            }
            let sets: Vec<&LogExpression> = judged.iter().chain([&cells.controls]).collect();
            let codes: Vec<i64> = sets.iter().enumerate().flat_map(|(i, set)| vec![i as i64; set.n_cells()]).collect();
            let names: Vec<String> = (0..codes.len()).map(|n| format!("cell_{n}")).collect();
            let levels = cells.labels.iter().cloned().chain([LABELS.1.to_owned()]).collect();
            let file = AnnDataWriter::create(&self.file(file))?;
            let values: Vec<f32> = sets.iter().flat_map(|set| &set.values).copied().collect();
            file.array_single("X", &[codes.len(), genes.len()], &values)?;
            file.frame("obs", &names, &[(LABELS.0.to_owned(), FrameColumn::Categorical(levels, codes))])?;
            file.frame("var", genes, &[])?;
            file.finish()?;
        }
        Ok(())
    }
}
