"""Power analysis: how many references a paired comparison needs to detect a difference."""

from __future__ import annotations

import numpy as np

from harness.runtime.errors import UsageError
from harness.statistics.comparison import REACH, Difference
from harness.statistics.intervals import t_quantile


def references_needed(observed: Difference, difference: float, *, power: float = 0.8, confidence: float = 0.95) -> int | None:
    """The number of references that detects a true `difference` (in the figure's own scale) with probability `power`.

    From the observed variance per reference of the difference of Fisher's z, for references and images like those observed, by
    the t test of level 1 - `confidence`.

    Args:
        observed: A paired comparison of one figure.
        difference: The true difference, such as 0.02 of SRCC.
        power: The probability of detection, between 0 and 1.
        confidence: 1 less the level of the test, between 0 and 1.

    Returns:
        The number of references; None when the observed comparison has no such error, or `difference` is 0.

    Raises:
        UsageError: a difference that the figure cannot have, or a power outside [0.5, 1).
    """
    if observed.error is None or observed.a is None or observed.b is None or difference == 0:
        return None
    reach = REACH[observed.statistic]
    if not abs(difference) < 2 * reach:
        raise UsageError(f"difference {difference:g}: {observed.statistic} cannot differ by {2 * reach:g} or more")
    if not 0.5 <= power < 1:
        raise UsageError(f"power {power:g}: expected a probability from 0.5 to below 1, such as 0.8")
    # tanh(m + d/2) - tanh(m - d/2) = share solved for d, at the observed middle m.
    share = abs(difference) / reach
    middle = (np.arctanh(observed.a / reach) + np.arctanh(observed.b / reach)) / 2
    c = np.cosh(2 * middle)
    target = float(np.log((share * c + np.sqrt(share**2 * c**2 + 4 - share**2)) / (2 - share)))
    per_reference = observed.error * np.sqrt(observed.references)

    def shown(k: int) -> bool:
        need = t_quantile(confidence, k - 1) + t_quantile(2 * power - 1, k - 1)
        return bool(need * per_reference / np.sqrt(k) <= target)

    high = 2
    while not shown(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if shown(half) else (half, high)
    return high
