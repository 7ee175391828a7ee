//! The judgement of predictions, as tables and sentences for people.

use crate::display::table::Table;
use crate::evaluation::predictions::bounds::Generalisation;
use crate::evaluation::predictions::intervals::IntervalFigures;
use crate::evaluation::predictions::judge::{MODEL, ModelComparison, PredictionJudgement, ScoreFigure};
use crate::evaluation::predictions::scores::Score;
use crate::words::grouped;

/// Scores whose values are shown with more digits, because they are small.
const SMALL: [Score; 2] = [Score::WeightedMse, Score::EnergyDistance];

/// The judgement of predictions of held-out combinations as text: a table of predictors and scores, the range of each score, and what
/// follows.
pub fn judgement_text(judgement: &PredictionJudgement) -> String {
    let header =
        ["predictor"].into_iter().chain(Score::ALL.iter().map(|score| score.name())).chain(["flat r", "flat R2"]);
    let mut table = Table::new(header).right_aligned(1..Score::ALL.len() + 3);
    for found in &judgement.predictors {
        let scores = Score::ALL.iter().zip(&found.scores).map(|(&score, figure)| figure_text(score, figure));
        let flat = [found.flat_pearson, found.flat_r2].map(|value| shown(value, 3));
        table.push([found.predictor.to_owned()].into_iter().chain(scores).chain(flat));
    }
    for (name, of) in [("floor", 0), ("ceiling", 1), ("dynamic range", 2)] {
        let scores = Score::ALL.iter().map(|&score| {
            let range = judgement.ranges.iter().find(|range| range.score == score.name());
            range.map_or(String::new(), |range| {
                shown([range.floor, range.ceiling, range.dynamic_range][of], digits(score))
            })
        });
        table.push([name.to_owned()].into_iter().chain(scores));
    }
    let n = grouped(judgement.n_combinations as u64);
    let mut text = format!(
        "{n} held-out combinations, {} cells, effects from {}; +- is 95 % over resampled cells. Floor and ceiling: what knows nothing \
         of a combination, and half of its cells, against the other half.\n\n{table}\n",
        grouped(judgement.n_cells as u64),
        if judgement.from_controls {
            "control cells"
        } else {
            "the mean of the perturbed (there are no control cells)"
        },
    );
    if let Some(bounds) = judgement.bounds {
        text += &format!(
            "\nImportance-weighted bound: {:.2} nats per cell within combinations first, {:.2} over all cells.\n",
            bounds.by_combination, bounds.by_cell
        );
        if let Some(Generalisation { unseen, seen, cost }) = bounds.generalisation {
            text += &format!(
                "Of {} cells that is {:.2}, of {} validation cells of combinations that were trained on {:.2}.",
                grouped(unseen.n_cells as u64),
                unseen.nll_iwelbo,
                grouped(seen.n_cells as u64),
                seen.nll_iwelbo
            );
            text += &cost.map_or(String::new(), |cost| {
                format!(" Above the true model, the former lie {cost:.2} nats more than the latter.")
            });
            text += "\n";
        }
    }
    if let Some(IntervalFigures { coverage, widening, coverage_widened }) = judgement.intervals {
        text += &format!(
            "\n95 % intervals of predicted log expression hold {:.1} % as training cells make them. Their widths are \
             multiplied by {widening:.2}; by what one half of the combinations asks for, {:.1} % of the intervals of the other half hold.\n",
            100.0 * coverage,
            100.0 * coverage_widened
        );
    }
    for sentence in sentences(&judgement.comparisons) {
        text += &format!("\n{sentence}");
    }
    let of_sum = judgement.non_additive.iter().filter(|found| found.non_additive).count();
    if !judgement.non_additive.is_empty() {
        text += &format!(
            "\n{} of {} combinations are not the sum of their members in log expression (5 % false discoveries).",
            grouped(of_sum as u64),
            grouped(judgement.non_additive.len() as u64)
        );
    }
    text
}

/// What the comparisons of the model with the baselines come to: where it is worse first of all.
pub fn sentences(comparisons: &[ModelComparison]) -> Vec<String> {
    let of = |found: &&ModelComparison| found.worse;
    let mut text: Vec<String> = comparisons.iter().filter(of).map(worse).collect();
    if text.is_empty() {
        text.push(format!("The {MODEL} is worse than no baseline beyond the error of resampling."));
    }
    let mut beaten: Vec<&str> = Vec::new();
    for found in comparisons.iter().filter(|found| found.score == Score::WeightedMse.name() && found.better) {
        beaten.push(found.baseline);
    }
    if !beaten.is_empty() {
        text.push(format!("It is better in {} than: {}.", Score::WeightedMse.name(), beaten.join(", ")));
    }
    text
}

/// That the model is worse than a baseline.
fn worse(found: &ModelComparison) -> String {
    let ModelComparison { baseline, score, difference, margin, .. } = found;
    format!(
        "The {MODEL} is WORSE than the baseline `{baseline}` in {score}: by {} (95 % interval +- {}).",
        shown(difference.abs(), 4),
        shown(*margin, 4)
    )
}

fn figure_text(score: Score, figure: &ScoreFigure) -> String {
    let digits = digits(score);
    match (figure.value, figure.margin) {
        (None, _) => "-".to_owned(),
        (Some(value), None) => shown(value, digits),
        (Some(value), Some(margin)) => format!("{} +- {}", shown(value, digits), shown(margin, digits)),
    }
}

fn digits(score: Score) -> usize {
    if SMALL.contains(&score) { 4 } else { 3 }
}

fn shown(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_loses_is_called_worse() {
        let of = |baseline, score: Score, difference: f64, margin: f64| {
            let gain = if score.higher_is_better() { difference } else { -difference };
            let (worse, better) = (gain < -margin, gain > margin);
            ModelComparison { baseline, score: score.name(), difference, margin, worse, better }
        };
        let lost = [
            of("additive", Score::WeightedMse, 0.02, 0.01),
            of("additive", Score::PearsonControl, -0.001, 0.01),
            of("no change", Score::WeightedMse, -0.3, 0.1),
        ];
        let said = sentences(&lost);
        assert_eq!(
            said[0],
            "The model is WORSE than the baseline `additive` in weighted_mse: by 0.0200 (95 % interval +- 0.0100)."
        );
        assert_eq!(said[1], "It is better in weighted_mse than: no change.");
        assert_eq!(sentences(&lost[1..2]), ["The model is worse than no baseline beyond the error of resampling."]);
    }
}
