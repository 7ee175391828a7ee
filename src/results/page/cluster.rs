//! Hierarchical clustering (average linkage) of the rows of a table, for the order of a heat map and its tree.

/// A step of the clustering: two clusters become one. Clusters below the number of rows are the rows themselves;
/// merge `i` makes cluster `rows + i`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Merge {
    pub first: usize,
    pub second: usize,
    /// Mean distance between the rows of the two.
    pub height: f64,
}

/// Merges of the rows of `table` (rows x `width`) by mean Euclidean distance, by chains of nearest neighbours: quadratic
/// in the number of rows. Equal distances are decided by the rows' order.
pub(crate) fn average_linkage(table: &[f64], width: usize) -> Vec<Merge> {
    let n = table.len() / width.max(1);
    let row = |i: usize| &table[i * width..(i + 1) * width];
    let mut distance = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..i {
            let d = row(i).iter().zip(row(j)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
            distance[i * n + j] = d;
            distance[j * n + i] = d;
        }
    }
    // Slot i holds a cluster of `size[i]` rows, until it is merged into another.
    let mut size = vec![1usize; n];
    let mut active = vec![true; n];
    let mut found: Vec<(usize, usize, f64)> = Vec::new();
    let mut chain: Vec<usize> = Vec::new();
    for _ in 1..n {
        if chain.is_empty() {
            chain.push(active.iter().position(|&a| a).expect("clusters are left"));
        }
        let (a, b) = loop {
            let top = chain[chain.len() - 1];
            let before = chain.len().checked_sub(2).map(|i| chain[i]);
            // The cluster before wins ties, so that the chain ends.
            let mut best = before.map_or((f64::INFINITY, usize::MAX), |b| (distance[top * n + b], b));
            for j in (0..n).filter(|&j| active[j] && j != top) {
                if distance[top * n + j] < best.0 {
                    best = (distance[top * n + j], j);
                }
            }
            if Some(best.1) == before {
                break (chain.pop().expect("top"), chain.pop().expect("before"));
            }
            chain.push(best.1);
        };
        let (keep, gone) = (a.min(b), a.max(b));
        found.push((keep, gone, distance[keep * n + gone]));
        let (x, y) = (size[keep] as f64, size[gone] as f64);
        for j in (0..n).filter(|&j| active[j] && j != keep && j != gone) {
            let mean = (x * distance[keep * n + j] + y * distance[gone * n + j]) / (x + y);
            distance[keep * n + j] = mean;
            distance[j * n + keep] = mean;
        }
        size[keep] += size[gone];
        active[gone] = false;
    }
    // Chains find merges out of order: by height they form the tree.
    found.sort_by(|a, b| a.2.total_cmp(&b.2));
    let mut cluster: Vec<usize> = (0..n).collect();
    let mut root: Vec<usize> = (0..n).collect();
    fn find(root: &mut [usize], mut i: usize) -> usize {
        while root[i] != i {
            root[i] = root[root[i]];
            i = root[i];
        }
        i
    }
    let mut merges = Vec::with_capacity(found.len());
    for (step, (a, b, height)) in found.into_iter().enumerate() {
        let (a, b) = (find(&mut root, a), find(&mut root, b));
        merges.push(Merge { first: cluster[a], second: cluster[b], height });
        root[b] = a;
        cluster[a] = n + step;
    }
    merges
}

/// Order of the rows along the tree; of two branches the one with the larger mean `weight` of its rows comes first, and
/// `merges` are turned accordingly.
pub(crate) fn leaf_order(n: usize, merges: &mut [Merge], weight: &[f64]) -> Vec<usize> {
    if merges.is_empty() {
        return (0..n).collect();
    }
    let mut totals: Vec<(f64, usize)> = weight.iter().map(|&w| (w, 1)).collect();
    for merge in merges.iter_mut() {
        let (first, second) = (totals[merge.first], totals[merge.second]);
        if second.0 / second.1 as f64 > first.0 / first.1 as f64 {
            std::mem::swap(&mut merge.first, &mut merge.second);
        }
        totals.push((first.0 + second.0, first.1 + second.1));
    }
    let mut order = Vec::with_capacity(n);
    let mut stack = vec![n + merges.len() - 1];
    while let Some(cluster) = stack.pop() {
        match cluster.checked_sub(n) {
            None => order.push(cluster),
            Some(step) => stack.extend([merges[step].second, merges[step].first]),
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_rows_merge_first_and_heights_are_mean_distances() {
        // Points on a line: 0, 1 | 10, 12 | 100.
        let table = [10.0, 0.0, 100.0, 1.0, 12.0];
        let mut merges = average_linkage(&table, 1);
        let heights: Vec<f64> = merges.iter().map(|m| m.height).collect();
        assert_eq!(merges.len(), 4);
        let wanted = [1.0, 2.0, 10.5, (100.0 + 99.0 + 90.0 + 88.0) / 4.0];
        assert!(heights.iter().zip(wanted).all(|(h, w)| (h - w).abs() < 1e-12), "{heights:?}");
        let order = leaf_order(5, &mut merges, &table);
        assert_eq!(order, [2, 4, 0, 3, 1]);
    }

    #[test]
    fn equal_rows_and_few_rows_are_no_trouble() {
        assert!(average_linkage(&[], 3).is_empty());
        assert_eq!(leaf_order(1, &mut average_linkage(&[1.0, 2.0], 2), &[0.0]), [0]);
        let mut merges = average_linkage(&[0.0; 14], 2);
        let mut order = leaf_order(7, &mut merges, &[0.0; 7]);
        assert!(merges.iter().all(|m| m.height == 0.0));
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn it_agrees_with_the_definition_on_random_rows() {
        // The mean of all pairwise distances, the nearest pair of clusters searched anew at each step.
        let mut state = 1u64;
        let table: Vec<f64> = (0..13 * 3)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f64 / 1e6
            })
            .collect();
        let d = |i: usize, j: usize| (0..3).map(|k| (table[i * 3 + k] - table[j * 3 + k]).powi(2)).sum::<f64>().sqrt();
        let mut clusters: Vec<Vec<usize>> = (0..13).map(|i| vec![i]).collect();
        let mut wanted = Vec::new();
        while clusters.len() > 1 {
            let mut best = (f64::INFINITY, 0, 0);
            for a in 0..clusters.len() {
                for b in 0..a {
                    let pairs = clusters[a].iter().flat_map(|&i| clusters[b].iter().map(move |&j| (i, j)));
                    let mean =
                        pairs.map(|(i, j)| d(i, j)).sum::<f64>() / (clusters[a].len() * clusters[b].len()) as f64;
                    if mean < best.0 {
                        best = (mean, a, b);
                    }
                }
            }
            let gone = clusters.remove(best.1);
            clusters[best.2].extend(gone);
            wanted.push(best.0);
        }
        let heights: Vec<f64> = average_linkage(&table, 3).iter().map(|m| m.height).collect();
        assert!(heights.iter().zip(&wanted).all(|(h, w)| (h - w).abs() < 1e-9), "{heights:?} {wanted:?}");
    }
}
