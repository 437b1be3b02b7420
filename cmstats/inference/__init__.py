"""Tests, intervals and interpretation around canonical correlations.

`canonical_correlation_test` by reference distributions, `permutation_test` without them,
`correlation_intervals` by the grouped jackknife, `bootstrap` and `component_stability` by
resampled fits, `loadings_table` and `redundancy` for reading a model; conformal p-values and
regions, which need no distribution.
"""

from cmstats.inference.bootstrap import BootstrapResult, bootstrap, component_stability
from cmstats.inference.conformal import conformal_p_values, conformal_quantile
from cmstats.inference.interpretation import loadings_table, redundancy
from cmstats.inference.intervals import correlation_intervals
from cmstats.inference.parametric import canonical_correlation_test
from cmstats.inference.permutation import permutation_test
from cmstats.inference.regions import Region

__all__ = [
    "BootstrapResult",
    "Region",
    "bootstrap",
    "canonical_correlation_test",
    "component_stability",
    "conformal_p_values",
    "conformal_quantile",
    "correlation_intervals",
    "loadings_table",
    "permutation_test",
    "redundancy",
]
