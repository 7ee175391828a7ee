//! Chooses settings without looking at the truth, by validation ELBO or by UDR. Derivation: `derivations/udr.md`.

use std::collections::{BTreeMap, HashMap};

use crate::commands::sweep::figures::{CRITERION_ELBO, CRITERION_UDR, Figures};
use crate::commands::sweep::plan::{Plan, PlannedRun};
use crate::commands::sweep::table::Row;
use crate::data::formats::npz::Npz;
use crate::error::{InputError, Result};
use crate::evaluation::correlation::Latents;
use crate::evaluation::udr::{FittedLatents, udr};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::settings::{Criterion, Grid, Selection};

/// Runs of one setting on the same data below which UDR is coarse; the number that Duan et al. advise.
const ENOUGH_RUNS: usize = 5;

/// Settings among which one is chosen, group by group, in the order of the plan.
fn groups(plan: &Plan, selection: &Selection) -> Vec<Vec<usize>> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for run in &plan.runs {
        let mut keys = run.config.saved_keys();
        keys.retain(|(key, _)| !selection.over.contains(key) && !["seed", "simulation.seed"].contains(&key.as_str()));
        let number = *numbers.entry(format!("{keys:?}")).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if !groups[number].contains(&run.setting) {
            groups[number].push(run.setting);
        }
    }
    groups
}

/// Refuses a selection by UDR that can rank nothing: settings to choose from without two runs on the same data.
///
/// # Errors
/// [`InputError`] naming the grid.
pub fn check(grid: &Grid, plan: &Plan) -> Result<()> {
    let Some(selection) = grid.selection.as_ref().filter(|selection| selection.by == Criterion::Udr) else {
        return Ok(());
    };
    let comparable = comparable(plan);
    let ranked = |setting: &usize| comparable.iter().any(|((s, _), runs)| s == setting && runs.len() > 1);
    for group in groups(plan, selection).iter().filter(|group| group.len() > 1) {
        if let Some(setting) = group.iter().find(|setting| !ranked(setting)) {
            let run = plan.runs.iter().find(|run| run.setting == *setting).expect("a setting has runs");
            let problem = format!(
                "settings cannot be chosen by UDR: it compares runs of one setting on the same data, and no two runs of \
                 the setting of {} share theirs",
                run.name
            );
            return Err(InputError::new(problem, SHARE_DATA).in_file(&grid.file).at("by = \"udr\"").into());
        }
    }
    Ok(())
}

const SHARE_DATA: &str =
    "list several seeds, and let them share a simulation by a `seed` under [simulation] (--sim-seed)";

/// Runs that UDR compares: of one setting, on the same data.
fn comparable(plan: &Plan) -> BTreeMap<(usize, usize), Vec<usize>> {
    let mut found: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (i, run) in plan.runs.iter().enumerate() {
        found.entry((run.setting, run.data)).or_default().push(i);
    }
    found
}

/// Fills in the UDR of every finished run that has another one to be compared with, and says what could not be ranked.
pub fn rank(team: &Team, plan: &Plan, figures: &mut [Option<Figures>]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut fewest = usize::MAX;
    for ((_, data), runs) in comparable(plan) {
        let finished: Vec<usize> = runs.into_iter().filter(|&i| figures[i].is_some()).collect();
        if finished.len() < 2 {
            continue;
        }
        match rank_group(team, plan, data, &finished, figures) {
            Ok(scores) => {
                fewest = fewest.min(finished.len());
                for (&i, score) in finished.iter().zip(scores) {
                    figures[i].as_mut().expect("finished").set(CRITERION_UDR, score);
                }
            }
            Err(error) => notes.push(format!("UDR is not available for {}: {error}", plan.runs[finished[0]].name)),
        }
    }
    if fewest == usize::MAX {
        notes.push(format!(
            "UDR is not available: it compares finished runs of one setting on the same data, and there are no two; \
             {SHARE_DATA}."
        ));
    } else if fewest < ENOUGH_RUNS {
        notes.push(format!(
            "UDR compares only {fewest} runs of a setting on the same data; with {ENOUGH_RUNS} or more it is steadier."
        ));
    }
    notes
}

/// UDR of each of `runs`, which are of one setting, on the cells that train and validate.
fn rank_group(team: &Team, plan: &Plan, data: usize, runs: &[usize], figures: &[Option<Figures>]) -> Result<Vec<f64>> {
    // Which of these cells validate depends on the seed, which cells they are does not.
    let split = plan.data[data].split(&plan.runs[runs[0]].config)?;
    let mut cells = [split.train, split.validation].concat();
    cells.sort_unstable();
    let tables = runs.iter().map(|&i| latents(&plan.runs[i], &cells)).collect::<Result<Vec<(Vec<f64>, usize)>>>()?;
    let models: Vec<FittedLatents> = tables
        .iter()
        .zip(runs)
        .map(|((values, l), &i)| {
            let kl = figures[i].as_ref().map_or(&[][..], |figures| &figures.latent_kl);
            FittedLatents { means: Latents::new(values, *l), kl }
        })
        .collect();
    Ok(udr(team, &models)?.scores)
}

/// The latents of some cells of a run, cells x L, and L.
fn latents(run: &PlannedRun, cells: &[usize]) -> Result<(Vec<f64>, usize)> {
    let path = ResultsFile::Latents.within(&run.folder);
    let (shape, values) = Npz::open(&path)?.array_f64("latents")?;
    let (&[n, l], Some(&last)) = (&shape[..], cells.last()) else {
        return Err(InputError::new("these are no latents of a run", "repeat the run").in_file(path).into());
    };
    if last >= n {
        return Err(InputError::new(format!("there are only {n} cells"), "repeat the run").in_file(path).into());
    }
    Ok((cells.iter().flat_map(|&n| &values[n * l..(n + 1) * l]).copied().collect(), l))
}

/// Marks the chosen setting of each group; says where none could be chosen.
pub fn select(plan: &Plan, selection: &Selection, rows: &mut [Row]) -> Vec<String> {
    let mut notes = Vec::new();
    for group in groups(plan, selection) {
        let score = |setting: usize| match selection.by {
            // Both as "higher is better".
            // Eq. (U6)
            Criterion::Elbo => rows[setting].mean(CRITERION_ELBO).map(|elbo| -elbo),
            Criterion::Udr => rows[setting].mean(CRITERION_UDR),
        };
        // A setting without rivals needs no score.
        let best = match group[..] {
            [only] => Some(only),
            _ => {
                let scored = group.iter().filter_map(|&setting| Some((setting, score(setting)?)));
                // The first of equals, as the grid lists them.
                scored.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(setting, _)| setting)
            }
        };
        group.iter().for_each(|&setting| rows[setting].selected = Some(best == Some(setting)));
        if best.is_none() {
            let run = plan.runs.iter().find(|run| run.setting == group[0]).expect("a setting has runs");
            notes.push(format!("No setting could be chosen among those of {}: none has a score.", run.name));
        }
    }
    notes
}
