//! What the linear model says about a network, in a sentence.

use crate::evaluation::metrics::LinearMetrics;
use crate::words::grouped;

/// The sentence of a report on what a simpler model finds as well, and whether the network beats it.
pub fn linear_sentence(linear: &LinearMetrics) -> String {
    let LinearMetrics { n_edges, n_edges_of_network, n_shared, .. } = *linear;
    let [n_edges, of_network, n_shared] = [n_edges, n_edges_of_network, n_shared].map(|n| grouped(n as u64));
    let graph = match n_edges_of_network {
        0 => format!("The linear model (principal components) finds {n_edges} edges where the network finds none"),
        _ => format!("The linear model (principal components) finds {n_shared} of these {of_network} edges"),
    };
    match linear.advantage_of_network {
        None => format!("{graph}."),
        Some(gap) if gap > 0.0 => {
            format!("{graph}; the network's bound on validation cells is {gap:.2} nats better.")
        }
        Some(gap) => format!(
            "{graph}; the network's bound on validation cells is {:.2} nats worse: on this screen the network does not beat it.",
            -gap
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(n_edges_of_network: usize, advantage_of_network: Option<f64>) -> LinearMetrics {
        LinearMetrics {
            n_edges: 1141,
            n_edges_of_network,
            n_shared: 136,
            bound_validation: None,
            advantage_of_network,
            mcc_pearson: None,
            f1: None,
        }
    }

    #[test]
    fn the_sentence_says_who_wins() {
        let of = |n, gap| linear_sentence(&linear(n, gap));
        let model = "The linear model (principal components) finds";
        let bound = "the network's bound on validation cells is";
        assert_eq!(of(143, Some(3.204)), format!("{model} 136 of these 143 edges; {bound} 3.20 nats better."));
        let lost = "nats worse: on this screen the network does not beat it.";
        assert_eq!(of(143, Some(-0.5)), format!("{model} 136 of these 143 edges; {bound} 0.50 {lost}"));
        assert_eq!(of(0, None), format!("{model} 1,141 edges where the network finds none."));
    }
}
