//! Which combinations are judged.

use crate::data::combinations::Combination;
use crate::data::screen::Screen;
use crate::evaluation::held_out::TOO_FEW_CELLS;

/// The combinations that are judged: those held out of members that were all trained on, with enough cells.
pub fn judged_combinations(screen: &Screen) -> Vec<Combination> {
    let Screen { data, split, .. } = screen;
    let known = |combination: &Combination| of_known_members(combination, &split.trained);
    let enough = |combination: &Combination| combination.cells.len() > TOO_FEW_CELLS;
    data.combinations(split.held_out.iter().copied()).into_iter().filter(known).filter(enough).collect()
}

/// Whether a combination has several members, all of them `trained` on.
pub(crate) fn of_known_members(combination: &Combination, trained: &[bool]) -> bool {
    let members = &combination.members;
    members.len() > 1 && members.iter().all(|&(a, _)| trained[a as usize])
}
