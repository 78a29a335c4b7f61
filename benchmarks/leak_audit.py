"""How often the leak audit flags an honest submission, and how often it finds a leak.

    nice -n 15 python benchmarks/leak_audit.py                # 1,000 draws, a tenth of them where ids are flagged; minutes
    python benchmarks/leak_audit.py --draws 50

A draw is a challenge of the size of NTIRE 2022's test phase: 25 references, 66 type ids each. A model's own score of an image
is the sum of a shift of its reference (standard deviation 1), a shift of its type (1) and a part of its own (1). The
submission is made from it:

noise         the same model on another machine: own scores plus noise
rounded       own scores rounded to so many decimals, of scores whose standard deviation is 1.7
bent          a curve of own scores: their sign times a power of their size
other model   own scores plus shifts of every type that vary over references: mean and spread over references are both drawn with
              standard deviations of 1 times `ratio` to 1
leak          own scores plus noise, and a shift of one id, alike in every reference

Printed: per cent of draws in which at least one honest id is flagged, with an exact 95 % interval (Clopper and Pearson), and for
leaks the per cent in which the id is flagged. Sizes are in standard deviations of the own scores.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from harness.cards.loading import find_challenge
from harness.challenges.image_names import all_names
from harness.challenges.leak_audit import audit

Floats = NDArray[np.float64]
CARD = find_challenge("ntire2022-fr")
NAMES = all_names(CARD, "test") or ()
REFERENCE = np.unique([name[:5] for name in NAMES], return_inverse=True)[1]
TYPE = np.unique([name[-6:-4] for name in NAMES], return_inverse=True)[1]
REFERENCES, TYPES = REFERENCE.max() + 1, TYPE.max() + 1


def own_scores(rng: np.random.Generator) -> Floats:
    """(n,): a model's own scores."""
    return np.asarray(rng.normal(size=REFERENCES)[REFERENCE] + rng.normal(size=TYPES)[TYPE] + rng.normal(size=len(NAMES)))


def submitted(rng: np.random.Generator, own: Floats, kind: str, size: float) -> Floats:
    """(n,): an honest submission from a model's own scores."""
    spread = own.std()
    if kind == "noise":
        return np.asarray(own + size * spread * rng.normal(size=len(own)))
    if kind == "rounded":
        return np.asarray(np.round(own, int(size)))
    if kind == "bent":
        return np.asarray(np.sign(own) * np.abs(own) ** size)
    cells = rng.normal(size=(TYPES, 1)) * size + rng.normal(size=(TYPES, REFERENCES))
    return np.asarray(own + 0.3 * spread * cells[TYPE, REFERENCE])


def flagged(scores: Floats, own: Floats) -> set[str]:
    """The ids that the audit flags."""
    return {shift.type for shift in audit(CARD, scores.tolist(), own.tolist(), NAMES).flagged}


def interval(count: int, draws: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, 95 %."""
    low = float(beta.ppf(0.025, count, draws - count + 1)) if count else 0.0
    return low, float(beta.ppf(0.975, count + 1, draws - count)) if count < draws else 1.0


def count_honest(kind: str, size: float, draws: int) -> None:
    """Print one row of honest submissions."""
    count = 0
    for draw in range(draws):
        rng = np.random.default_rng([draw, len(kind), int(1e6 * size)])
        own = own_scores(rng)
        count += bool(flagged(submitted(rng, own, kind, size), own))
    low, high = interval(count, draws)
    print(f"{kind:12} {size:<8g} {100 * count / draws:6.1f}  [{100 * low:.1f}, {100 * high:.1f}]  {draws} draws", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    draws = parser.parse_args().draws
    print("honest submissions of the same model: per cent with an id flagged")
    for kind, size in [("noise", 1e-6), ("noise", 0.01), ("noise", 0.1), ("noise", 1.0)]:
        count_honest(kind, size, draws)
    for kind, size in [("rounded", 3), ("rounded", 1), ("rounded", 0), ("bent", 0.8), ("bent", 1.25)]:
        count_honest(kind, size, draws)
    few, leaky = max(1, draws // 10), NAMES[int(np.flatnonzero(TYPE == 40)[0])][-6:-4]
    print(f"\na shift of one id, {few} draws: per cent in which it is flagged, and in which another is")
    for shift, noise in [(0.003, 1e-6), (0.01, 1e-3), (0.03, 1e-3), (0.03, 0.01), (0.1, 0.01), (0.1, 0.03), (0.1, 0.1)]:
        found = others = 0
        for draw in range(few):
            rng = np.random.default_rng([draw, 99, int(1e6 * shift), int(1e6 * noise)])
            own = own_scores(rng)
            scores = submitted(rng, own, "noise", noise)
            scores[TYPE == 40] += shift * own.std()
            ids = flagged(scores, own)
            found += leaky in ids
            others += bool(ids - {leaky})
        print(f"shift {shift:<6g} noise {noise:<6g} {100 * found / few:6.1f}  {100 * others / few:6.1f}", flush=True)
    print("\nhonest submissions audited against another model's scores: per cent with an id flagged")
    for size in (0.5, 1.0, 2.0, 5.0):
        count_honest("other model", size, few)


if __name__ == "__main__":
    main()
