//! Labels become sets of interventions: order and repetition of their parts do not matter, and guides stand for their targets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::data::formats::column::{Levels, is_missing};
use crate::data::formats::labels::{TextRow, text_rows};
use crate::data::loading::assignments::Assignments;
use crate::error::{InputError, Result};
use crate::words::{first_few, nearest};

/// Columns of a table of guides that usually hold the guide, and its target.
const USUAL_GUIDES: [&str; 8] = ["id", "guide", "guide_id", "grna", "grna_id", "sgrna", "sgrna_id", "protospacer"];
const USUAL_TARGETS: [&str; 8] =
    ["target_gene_name", "target", "target_gene", "gene", "gene_name", "grna_target", "target_gene_id", "gene_id"];

/// The interventions, or controls, that each level of the labels stands for.
#[derive(Debug)]
pub(crate) struct Members {
    /// Names of all of them: the levels themselves where labels are taken as they stand, else in ascending order.
    pub names: Vec<String>,
    /// Those of each level with their doses, ascending.
    pub of: Vec<Vec<(u32, f32)>>,
}

impl Members {
    /// Those of `assignments`: parts that are `controls` keep their names, others get those of their targets, if there is a table
    /// of these. What comes again in a label counts once, at the largest of its doses.
    ///
    /// # Errors
    /// [`InputError`] for a guide that the table does not have.
    pub fn new(assignments: &Assignments, targets: Option<&GuideTargets>, controls: &[String]) -> Result<Self> {
        if assignments.plain && targets.is_none() {
            let names = assignments.labels.names.clone();
            return Ok(Self { of: (0..names.len() as u32).map(|a| vec![(a, 1.0)]).collect(), names });
        }
        let mut sets: Vec<BTreeMap<&str, f32>> = Vec::with_capacity(assignments.parts.len());
        let mut strangers = BTreeSet::new();
        for parts in &assignments.parts {
            let mut set = BTreeMap::new();
            for (name, dose) in parts {
                let member = match targets {
                    Some(targets) if !controls.contains(name) => targets.of.get(name).map(String::as_str),
                    _ => Some(name.as_str()),
                };
                match member {
                    Some(member) => {
                        let largest = set.entry(member).or_insert(*dose);
                        *largest = dose.max(*largest);
                    }
                    None => {
                        strangers.insert(name);
                    }
                }
            }
            sets.push(set);
        }
        if let (Some(first), Some(targets)) = (strangers.first(), targets) {
            let strangers: Vec<&&String> = strangers.iter().collect();
            let problem = format!("it has no target for {}", first_few(&strangers));
            let remedy = match nearest(first, targets.of.keys().map(String::as_str)) {
                Some(near) => format!("add them to the table, or name them with --control (did you mean `{near}`?)"),
                None => "add them to the table, or name them with --control if they are controls".to_owned(),
            };
            return Err(InputError::new(problem, remedy).in_file(&targets.path).into());
        }
        let names: Vec<&str> =
            sets.iter().flat_map(BTreeMap::keys).copied().collect::<BTreeSet<_>>().into_iter().collect();
        let number = |name: &str| names.binary_search(&name).expect("each member has a name") as u32;
        let of = sets.iter().map(|set| set.iter().map(|(name, dose)| (number(name), *dose)).collect()).collect();
        Ok(Self { names: names.into_iter().map(str::to_owned).collect(), of })
    }

    /// Restricts the levels to those of the given numbers, in that order.
    pub fn keep_levels(&mut self, levels: &[usize]) {
        self.of = levels.iter().map(|&level| std::mem::take(&mut self.of[level])).collect();
    }

    /// Cells of each.
    pub fn sizes(&self, labels: &Levels) -> Vec<usize> {
        let mut sizes = vec![0; self.names.len()];
        for (members, size) in self.of.iter().zip(labels.sizes()) {
            members.iter().for_each(|&(a, _)| sizes[a as usize] += size);
        }
        sizes
    }

    /// The numbers of those that `controls` names, each of which some cell has.
    ///
    /// # Errors
    /// [`InputError`] for a name that no cell has, without file.
    pub fn controls(&self, labels: &Levels, controls: &[String]) -> Result<Vec<u32>, InputError> {
        let sizes = self.sizes(labels);
        let number = |name: &String| match self.names.iter().position(|known| known == name).filter(|&a| sizes[a] > 0) {
            Some(a) => Ok(a as u32),
            None => {
                let remedy = match nearest(name, self.names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("the labels are {}", first_few(&self.names)),
                };
                Err(InputError::new(format!("no cell has the label \"{name}\" that --control names"), remedy))
            }
        };
        controls.iter().map(number).collect()
    }

    /// The interventions of each level with their doses: its members without controls.
    pub fn acting(&self, controls: &[u32]) -> Vec<Vec<(u32, f32)>> {
        let acts = |members: &Vec<(u32, f32)>| members.iter().copied().filter(|(a, _)| !controls.contains(a)).collect();
        self.of.iter().map(acts).collect()
    }
}

/// A table of guides and their targets.
#[derive(Debug)]
pub(crate) struct GuideTargets {
    path: PathBuf,
    of: BTreeMap<String, String>,
}

impl GuideTargets {
    /// Reads a CSV or TSV with a row per guide: the first of its columns with a usual name (`id`, `guide`, ...) and the first of a
    /// target (`target_gene_name`, `target`, `gene`, ...), as CellRanger's feature reference has them; of two columns with other
    /// names, or without a header, guide and target. Rows without a target are no guides.
    ///
    /// # Errors
    /// [`InputError`], with the line, if it is absent or no such table, or if a guide has two targets.
    pub fn read(path: &Path) -> Result<Self> {
        let fault = |problem: String, remedy: &str| InputError::new(problem, remedy).in_file(path);
        let rows = text_rows(path, "guide and target")?;
        let header: Vec<String> = rows[0].fields.iter().map(|name| name.to_lowercase()).collect();
        let usual = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|field| field == name));
        let (guide, target, named) = match (usual(&USUAL_GUIDES), usual(&USUAL_TARGETS)) {
            (Some(guide), Some(target)) => (guide, target, true),
            (None, None) if header.len() == 2 => (0, 1, false),
            _ if header.len() == 2 => (0, 1, true),
            _ => {
                let problem =
                    format!("it is not told which of its columns are guide and target: {}", first_few(&rows[0].fields));
                return Err(fault(problem, "call them `guide` and `target`, or leave only these two").into());
            }
        };
        let mut of: BTreeMap<String, String> = BTreeMap::new();
        for TextRow { line, fields } in rows.iter().skip(usize::from(named)) {
            let (guide, target) = (&fields[guide], &fields[target]);
            if is_missing(guide) || is_missing(target) {
                continue;
            }
            match of.insert(guide.clone(), target.clone()) {
                Some(before) if before != *target => {
                    let problem = format!("the guide `{guide}` has the targets `{before}` and `{target}`");
                    return Err(fault(problem, "keep one row per guide").at(format!("line {line}")).into());
                }
                _ => {}
            }
        }
        if of.is_empty() {
            return Err(
                fault("no guide has a target".to_owned(), "give a row with guide and target for each guide").into()
            );
        }
        Ok(Self { path: path.to_path_buf(), of })
    }

    /// Names of all guides and targets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.of.iter().flat_map(|(guide, target)| [guide.as_str(), target.as_str()])
    }

    /// Refuses a separator that is part of the name of a guide.
    ///
    /// # Errors
    /// [`InputError`] naming such a guide.
    pub fn check_separator(&self, separator: &str) -> Result<(), InputError> {
        match self.of.keys().find(|guide| guide.contains(separator)) {
            None => Ok(()),
            Some(guide) => {
                let problem = format!("the separator `{separator}` is part of the name of the guide `{guide}`");
                let remedy = "give the --combination-separator that stands between guides, or leave it out";
                Err(InputError::new(problem, remedy).in_file(&self.path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(labels: &[&str]) -> Assignments {
        let names = labels.iter().map(|name| name.to_string()).collect();
        let codes = (0..labels.len() as u32).map(Some).collect();
        Assignments::separated(Levels { names, numbers: None, codes }, "|", &[]).unwrap()
    }

    fn table(text: &str) -> Result<GuideTargets> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guides.csv");
        std::fs::write(&path, text).unwrap();
        GuideTargets::read(&path)
    }

    #[test]
    fn labels_of_the_same_parts_are_the_same_set() {
        let assigned = assigned(&["B|A", "A|B|A", "A|NT", "NT|NT", "NT"]);
        let members = Members::new(&assigned, None, &["NT".to_owned()]).unwrap();
        assert_eq!(members.names, ["A", "B", "NT"]);
        assert_eq!(members.of[0], members.of[1]);
        let controls = members.controls(&assigned.labels, &["NT".to_owned()]).unwrap();
        let acting = members.acting(&controls);
        assert_eq!(acting, [vec![(0, 1.0), (1, 1.0)], vec![(0, 1.0), (1, 1.0)], vec![(0, 1.0)], vec![], vec![]]);
        assert_eq!(members.sizes(&assigned.labels), [3, 2, 3]);
        let message = members.controls(&assigned.labels, &["N".to_owned()]).unwrap_err().to_string();
        assert!(message.contains("no cell has the label \"N\""), "{message}");
    }

    #[test]
    fn guides_of_a_target_count_once() {
        let targets = table("id,name,read,target_gene_name\nA_1,A_1,R2,A\nA_2,A_2,R2,A\nNT_1,NT_1,R2,none\n").unwrap();
        let assigned = assigned(&["A_1|A_2", "A_2", "NT_1", "NT_2|A_1"]);
        let members = Members::new(&assigned, Some(&targets), &["NT_2".to_owned()]).unwrap();
        assert_eq!(members.names, ["A", "NT_2", "none"]);
        assert_eq!(members.of, [vec![(0, 1.0)], vec![(0, 1.0)], vec![(2, 1.0)], vec![(0, 1.0), (1, 1.0)]]);
        let message = Members::new(&assigned, Some(&targets), &[]).unwrap_err().to_string();
        assert!(message.contains("no target for `NT_2`") && message.contains("did you mean `NT_1`"), "{message}");
        assert!(targets.check_separator("|").is_ok());
        assert!(targets.check_separator("_").unwrap_err().to_string().contains("`A_1`"));
    }

    #[test]
    fn tables_of_guides_with_and_without_header() {
        for text in ["A_1,A\nA_2,A\n", "guide\ttarget\nA_1\tA\nA_2\tA\n", "x,gene\nA_1,A\nA_2,A\nB,\n"] {
            let found: Vec<(String, String)> = table(text).unwrap().of.into_iter().collect();
            assert_eq!(found, [("A_1", "A"), ("A_2", "A")].map(|(g, t)| (g.to_owned(), t.to_owned())), "{text}");
        }
        for (text, part) in [
            ("a,b,c\n1,2,3\n", "`a`, `b`, `c`"),
            ("guide,target\nA,x\nA,y\n", "line 3: the guide `A` has the targets `x` and `y`"),
            ("guide,target\nA,\n", "no guide has a target"),
        ] {
            let message = table(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
