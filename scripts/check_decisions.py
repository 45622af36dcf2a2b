# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check, on simulated studies of which everything is known, how often a study's decision is wrong.

    python scripts/check_decisions.py [worlds=nothing_1,ruined_6] [studies=1000]

Each world draws studies of 5 seeds and lets `det_ls.studies.decision.decide` decide; tests/studies/test_decision.py
runs the same on few studies; docs/statistics.md quotes the table that this prints.

What is drawn: the AP of a run is 0.4 plus what its seed does to every arm plus noise of its own, half of the variance
each, so that the differences of two arms vary as the runs of one arm do. Its kept boxes' score minus precision is drawn
likewise around +0.15, of which the Platt map leaves noise around 0. All effects are in standard deviations of the
paired difference, which is here that of one arm's runs too.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

from det_ls.studies.decision import Outcome, decide  # noqa: E402
from det_ls.studies.records import Arm, Cell, CellResult, Condition, Measured, State  # noqa: E402
from det_ls.studies.statistics import AP, GAP, SQUARED, study_numbers  # noqa: E402


@dataclass(frozen=True)
class World:
    """What is true of the arms of a study.

    Attributes:
        about: What it is, in a line.
        arms: Smoothed arms.
        good: How many of them have the effects; the others have none.
        ap: Effect on AP, in standard deviations.
        ap_is: Effect on AP, as a number, besides.
        gap: By how much smaller the gap of the kept boxes is, in standard deviations.
        gap_share: By which share smaller, besides.
        ap_sd: Standard deviation of AP between seeds; two ends, between which each study draws its own.
        gap_sd: That of the gap.
        platt: Standard deviation of the gap that a Platt map leaves, around 0; None where it leaves all.
        wild: How many times as much the last arm varies.
        tails: Degrees of freedom of t-distributed noise; None of normal noise.
    """

    about: str
    arms: int = 1
    good: int = 1
    ap: float = 0.0
    ap_is: float = 0.0
    gap: float = 0.0
    gap_share: float = 0.0
    ap_sd: tuple[float, float] = (0.01, 0.01)
    gap_sd: float = 0.01
    platt: float | None = 0.01
    wild: float = 1.0
    tails: int | None = None


RUIN = {"ap_is": -0.02, "gap_share": 1.0, "ap_sd": (0.008, 0.02)}
NO_MAP = {"platt": None, "ap_sd": (0.003, 0.003)}  # the null under which calibration is claimed most easily
WORLDS: dict[str, tuple[World, str]] = {
    "nothing_1": (World("No effect, 1 arm"), "at most 0.05"),
    "nothing_6": (World("No effect, 6 arms", 6), "at most 0.05"),
    "no_map_1": (World("No effect of smoothing nor of Platt, 1 arm", **NO_MAP), "at most 0.05"),  # type: ignore[arg-type]
    "no_map_6": (World("No effect of smoothing nor of Platt, 6 arms", 6, **NO_MAP), "at most 0.05"),  # type: ignore[arg-type]
    "wild_6": (World("No effect, 6 arms, one of which varies 4 times as much", 6, wild=4.0), "at most 0.05"),
    "tails_6": (World("No effect, 6 arms, noise with heavy tails (t, 3)", 6, tails=3), "at most 0.05"),
    "ap_1": (World("AP higher by 2 sd, 1 arm", ap=2.0), "at least 0.80"),
    "ap_6": (World("AP higher by 2 sd in 1 of 6 arms", 6, ap=2.0), "at least 0.80"),
    "ap_all_6": (World("AP higher by 2 sd in 6 arms", 6, 6, ap=2.0), "at least 0.80"),
    "both_1": (World("AP higher and gap smaller by 2 sd, 1 arm", ap=2.0, gap=2.0), "at least 0.80"),
    "both_6": (World("AP higher and gap smaller by 2 sd in 1 of 6 arms", 6, ap=2.0, gap=2.0), "at least 0.80"),
    "gap_1": (World("Gap smaller by 2 sd, no map helps; sd of AP 0.003, 1 arm", gap=2.0, **NO_MAP), "at least 0.80"),  # type: ignore[arg-type]
    "gap_6": (World("The same in 1 of 6 arms", 6, gap=2.0, **NO_MAP), "at least 0.80"),  # type: ignore[arg-type]
    "gap_noisy": (World("The same, sd of AP 0.01, 1 arm", gap=2.0, platt=None), "-"),
    "run_sd_1": (World("AP higher by 2 sd of one arm's runs, seeds that do not correlate, 1 arm", ap=2 / 2**0.5), "-"),
    "run_sd_6": (World("The same in 1 of 6 arms", 6, ap=2 / 2**0.5), "-"),
    "ruined_1": (World("AP lower by 0.02 (sd 0.008 to 0.02), no gap left, 1 arm", **RUIN), "0"),  # type: ignore[arg-type]
    "ruined_6": (World("The same in 6 of 6 arms", 6, 6, **RUIN), "0"),  # type: ignore[arg-type]
    "ruined_wild_6": (World("The same, one of the arms varies 4 times as much", 6, 6, wild=4.0, **RUIN), "0"),  # type: ignore[arg-type]
}
SEEDS = 5


def study(world: World, rng: np.random.Generator) -> list[CellResult]:
    """Draw one study."""

    def noise(*shape: int) -> np.ndarray:
        if world.tails is None:
            return rng.normal(size=shape)
        return rng.standard_t(world.tails, shape) / np.sqrt(world.tails / (world.tails - 2))

    k = world.arms + 1
    varies = np.array([*[1.0] * (k - 1), world.wild])[:, None]
    good = (np.arange(k) > 0) & (np.arange(k) <= world.good)
    sd = rng.uniform(*world.ap_sd)
    ap = 0.4 + (noise(1, SEEDS) + varies * noise(k, SEEDS)) * sd / np.sqrt(2)
    ap += good[:, None] * (world.ap * sd + world.ap_is)
    noisy = (noise(1, SEEDS) + varies * noise(k, SEEDS)) * world.gap_sd / np.sqrt(2)
    gap = (0.15 - good[:, None] * (0.15 * world.gap_share + world.gap * world.gap_sd)) + noisy
    left = gap if world.platt is None else noise(k, SEEDS) * world.platt
    results = []
    for i in range(k):
        arm = Arm() if i == 0 else Arm(f"0.{i}")
        for seed in range(SEEDS):
            val, platt = (
                {AP: float(ap[i, seed]), GAP: abs(g), SQUARED: g * g}
                for g in (float(gap[i, seed]), float(left[i, seed]))
            )
            results.append(CellResult(Cell(Condition(), arm, seed), State.DONE, Measured(val, val, platt)))
    return results


def outcomes(world: World, studies: int, seed: int = 0) -> Counter[Outcome]:
    """Decide many studies of one world; a good arm has to be the recommended one to count as ``USE``.

    Where no arm, or no arm that deserves it, is good, whatever is recommended counts.
    """
    found: Counter[Outcome] = Counter()
    deserved = world.ap > 0 or world.gap > 0
    for i in range(studies):
        made = decide(study_numbers(study(world, np.random.default_rng([seed, i])))[0])
        names = [Arm(f"0.{k + 1}") for k in range(world.good)]
        wrong = deserved and made.outcome is Outcome.USE and made.arm is not None and made.arm.arm not in names
        found[Outcome.KEEP_STOCK if wrong else made.outcome] += 1
    return found


def main() -> int:
    from det_ls.cli.grammar import check_known, key_values

    arguments = key_values(sys.argv[1:])
    check_known(arguments, ("worlds", "studies"), (), "the decisions' check")
    wanted = str(arguments.get("worlds", ",".join(WORLDS))).split(",")
    if unknown := [name for name in wanted if name not in WORLDS]:
        raise SystemExit(f"worlds: expected some of {', '.join(WORLDS)}, got {unknown[0]!r}.")
    studies = int(arguments.get("studies", 1000))
    print(f"{studies} studies of {SEEDS} seeds each\n")
    print("| true | use it | wanted | calibrate | too few | harms | keep stock |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in wanted:
        begun = time.monotonic()
        world, bound = WORLDS[name]
        found = outcomes(world, studies)
        shares = [f"{found[o] / studies:.3f}" for o in Outcome]
        order = dict(zip(Outcome, shares, strict=True))
        cells = [
            order[Outcome.USE],
            bound,
            *(order[o] for o in (Outcome.CALIBRATE, Outcome.TOO_FEW, Outcome.HARM, Outcome.KEEP_STOCK)),
        ]
        print(f"| {world.about} | {' | '.join(cells)} |", flush=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
