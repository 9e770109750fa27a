//! Max-min fairness: everybody gets what they want up to one bound, and nothing is left over.

/// The bound, where all together want more than there is.
pub(super) fn bound(mut wants: Vec<f64>, budget: f64) -> f64 {
    wants.sort_by(f64::total_cmp);
    let mut left = budget;
    for (at, want) in wants.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a node has hundreds of interfaces")]
        let even = left / (wants.len() - at) as f64;
        if *want > even {
            return even;
        }
        left -= want;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::bound;

    #[test]
    fn the_small_get_what_they_want_and_the_large_the_same() {
        for (wants, budget, expected) in [
            (vec![10.0, 100.0], 60.0, 50.0),
            (vec![100.0, 10.0, 30.0], 60.0, 25.0),
            (vec![5.0, 5.0, 5.0], 6.0, 2.0),
            (vec![100.0], 7.0, 7.0),
            (vec![1.0, 2.0], 3.0, f64::INFINITY),
            (vec![], 3.0, f64::INFINITY),
        ] {
            let bound = bound(wants.clone(), budget);
            assert!((bound - expected).abs() < 1e-9 || bound == expected, "{wants:?} {bound}");
            let taken: f64 = wants.iter().map(|want| want.min(bound)).sum();
            assert!(taken <= budget + 1e-9, "{wants:?}");
        }
    }
}
