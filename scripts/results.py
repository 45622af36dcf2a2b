# SPDX-License-Identifier: AGPL-3.0-or-later
"""Write the published results from their raw files: tables and pictures of docs/results.md and README.md.

    python scripts/results.py                                            # write them
    python scripts/results.py --check                                    # fail where pages and raw files differ
    python scripts/results.py --add phantom --folder runs/study/phantom  # take the cells of a study, then write

The raw files are in docs/results/: ``NAME.json`` with the finished and failed cells of a study (no weights, no images),
``digits.json`` with the runs of scripts/classify_digits.py. A page is only written between its marks
``<!-- results: NAME.part -->`` and ``<!-- end -->``; what stands around them is written by hand, and holds no figure of
these runs. A picture carries the checksum of the raw file that it was drawn from.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from det_ls.base.errors import ArgumentError, DataError
from det_ls.base.files import sha256_of, write_atomically
from det_ls.report import plots_study
from det_ls.report.study_words import condition_text, decision_lead, decision_text, difference_text, first_up
from det_ls.report.tables import to_markdown
from det_ls.report.words import number, span_text
from det_ls.study.cell import CELL_FILE, result_of
from det_ls.study.decision import decide
from det_ls.study.records import CellResult, State
from det_ls.study.statistics import (
    AP,
    GAP,
    Against,
    ArmNumbers,
    ConditionNumbers,
    SeedMean,
    seed_difference,
    seed_mean,
    study_numbers,
)

ROOT = Path(__file__).resolve().parents[1]
RAW, IMAGES = ROOT / "docs" / "results", ROOT / "docs" / "images"
PAGES = (ROOT / "docs" / "results.md", ROOT / "README.md")
MARK = re.compile(r"(<!-- results: (\w+)\.(\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CURVES = ("epoch", "train/cls_loss", "label_smoothing")
KEYS = {
    AP: "AP",
    "kept.signed_gap": "score minus precision",
    GAP: "its size",
    "kept.DECE": "D-ECE",
    "kept.brier": "Brier",
}
DIGITS = {"accuracy": "accuracy", "ECE": "ECE", "signed gap": "confidence minus accuracy", "NLL": "NLL"}


# Raw files ------------------------------------------------------------------------------------------------------------


def add(name: str, folder: Path, raw: Path = RAW) -> Path:
    """Take the cells of a study, or the runs of the digits, into the raw files; earlier ones of other seeds stay.

    Args:
        name: Name of the raw file.
        folder: The folder of a study, or of scripts/classify_digits.py.
        raw: Where raw files are.

    Returns:
        The raw file.

    Raises:
        ValueError: If nothing is finished there.
    """
    cells = [_slim(json.loads(file.read_text("utf-8"))) for file in sorted(folder.glob(f"seed*/*/{CELL_FILE}"))]
    runs = [_digits_run(file) for file in sorted(folder.glob("epsilon*-seed*/numbers.json"))]
    if not cells and not runs:
        raise DataError(f"--folder: expected a study or digits with a finished run, got '{folder}'.")
    target = raw / f"{name}.json"
    known = json.loads(target.read_text("utf-8")) if target.is_file() else []
    entries = {_identity(entry): entry for entry in [*known, *cells, *runs]}
    raw.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entries[key]) for key in sorted(entries))  # a run a line
    write_atomically(target, f"[\n{lines}\n]\n".encode())
    return target


def _slim(content: dict[str, Any]) -> dict[str, Any]:
    """Keep of a cell what a page or a reader uses: six digits, and of the curves three columns."""
    curves = {key: values for key, values in content.get("curves", {}).items() if key in CURVES}
    kept = {key: content[key] for key in ("cell", "state", "measured", "error", "config", "seconds", "versions")
            if key in content}  # fmt: skip
    found: dict[str, Any] = _rounded({**kept, "curves": curves})
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _digits_run(file: Path) -> dict[str, Any]:
    epsilon, seed = re.fullmatch(r"epsilon([\d.]+)-seed(\d+)", file.parent.name).groups()  # type: ignore[union-attr]
    return {"epsilon": float(epsilon), "seed": int(seed), **json.loads(file.read_text("utf-8"))}


def _identity(entry: dict[str, Any]) -> str:
    return json.dumps(entry.get("cell") or [entry["seed"], entry["epsilon"]], sort_keys=True)


def read_study(name: str, raw: Path = RAW) -> list[CellResult]:
    """Read the cells of a published study, stock first and by epsilon.

    Args:
        name: Name of the raw file.
        raw: Where raw files are.

    Returns:
        The cells.
    """
    entries = json.loads((raw / f"{name}.json").read_text("utf-8"))
    results = [result_of(entry) for entry in entries]
    return sorted(results, key=lambda r: (r.cell.condition, not r.cell.arm.stock, r.cell.arm.mode != "redistribute",
                                          r.cell.arm, r.cell.seed))  # fmt: skip


# Parts of the pages ---------------------------------------------------------------------------------------------------


def arms(results: Sequence[CellResult]) -> str:
    """Tabulate the means over seeds, each arm as trained and with a Platt map."""
    rows: list[list[str | float | None]] = []
    for one in study_numbers(results):
        for a in _all_arms(one):
            for split, name in (("val", a.arm.name), ("platt", f"{a.arm.name} + Platt")):
                found = getattr(a, split)
                train = _mean(a.train.get(AP)) if split == "val" else ""
                values = [_mean(found.get(key)) if split == "val" or key != AP else "" for key in KEYS]
                count = f"{len(a.done)}" if split == "val" else ""
                rows.append([condition_text(one.condition), name, count, values[0], train, *values[1:]])
    header = ["labels", "trained with", "seeds", "AP", "AP of training images", *list(KEYS.values())[1:]]
    return to_markdown(header, rows)


def differences(results: Sequence[CellResult]) -> str:
    """Tabulate the differences of each arm to stock: paired by seed, with 95% t-interval and p."""
    rows: list[list[str | float | None]] = []
    for one in study_numbers(results):
        for a in one.arms:
            asked = [
                ("AP, with Platt on both sides (declared)", Against.CALIBRATED, AP),
                ("gap of the kept boxes, with Platt on both sides (declared)", Against.CALIBRATED, GAP),
                ("gap of the kept boxes, as trained", Against.STOCK, GAP),
                ("gap of the kept boxes, against stock + Platt", Against.RIVAL, GAP),
                ("AUROC of the boxes", Against.STOCK, "auroc"),
                ("oLRP (lower is better)", Against.STOCK, "oLRP"),
            ]
            for what, side, key in asked:
                d = a.against.get(side, {}).get(key)
                if d is not None:
                    sign = f"{sum(v > 0 for v in d.values.values())} of {d.n}"
                    p = _p(d.p) if d.n > 1 else ""
                    rows.append([condition_text(one.condition), a.arm.name, what, difference_text(d), p, sign])
            fit = _overfit(one, a)
            if fit:
                rows.append([condition_text(one.condition), a.arm.name, "AP of training minus validation images", *fit])
    return to_markdown(["labels", "arm", "number", "arm minus stock", "p, two-sided", "seeds above 0"], rows)


def seeds(results: Sequence[CellResult]) -> str:
    """Tabulate every run."""
    rows: list[list[str | float | None]] = []
    for r in results:
        m = r.measured
        about: list[str | float | None] = [condition_text(r.cell.condition), r.cell.arm.name, str(r.cell.seed)]
        if m is None:
            rows.append([*about, f"{r.state.value}: {r.error}", *[""] * 4])
        else:
            numbers = [m.val.get(AP), m.train.get(AP), m.val.get("kept.signed_gap"), m.val.get("kept.DECE"),
                       m.platt.get("kept.DECE")]  # fmt: skip
            rows.append([*about, *(number(v, decimals=3) for v in numbers)])
    header = ["labels", "trained with", "seed", "AP", "AP of training images", "score minus precision", "D-ECE"]
    return to_markdown([*header, "D-ECE after Platt"], rows)


def decisions(results: Sequence[CellResult]) -> str:
    """Write what `det-ls study` decides of it."""
    return "\n".join(
        f"- **{first_up(condition_text(d.condition))}: {decision_lead(d)}.** {decision_text(d)}"
        for d in map(decide, study_numbers(results))
    )


def answer(results: Sequence[CellResult]) -> str:
    """Answer the three questions in a line each, of the arm redistribute 0.1."""
    lines: dict[str, list[str]] = {"Less over-fitting?": [], "Better boxes?": [], "More reliable scores?": []}
    for one in study_numbers(results):
        stock, arm = one.stock, next((a for a in one.arms if a.arm.name == "redistribute 0.1"), None)
        if stock is None or arm is None or not arm.done or AP not in arm.overfit:
            continue
        where = condition_text(one.condition)
        fit = _overfit(one, arm)
        gap, rival = arm.against[Against.STOCK].get(GAP), arm.against[Against.RIVAL].get(GAP)
        lines["Less over-fitting?"].append(
            f"{where}: AP of the training images above that of the validation images by {arm.overfit[AP].mean:.3f}, "
            f"stock by {stock.overfit[AP].mean:.3f}; difference {fit[0] if fit else 'not measured'}"
        )
        lines["Better boxes?"].append(
            f"{where}: AP {arm.val[AP].mean:.3f}, stock {stock.val[AP].mean:.3f}; "
            f"difference {difference_text(arm.against[Against.STOCK].get(AP))}"
        )
        lines["More reliable scores?"].append(
            f"{where}: score and precision of the kept boxes differ by {_plain(arm.val.get(GAP))}, stock's by "
            f"{_plain(stock.val.get(GAP))}, those of stock with a Platt map by {_plain(stock.platt.get(GAP))}; "
            f"against stock {difference_text(gap)}, against stock + Platt {difference_text(rival)}"
        )
    return "\n".join(
        f"- **{question}** {first_up('. '.join(first_up(t) for t in said))}." for question, said in lines.items()
    )


def digits_table(runs: Sequence[dict[str, Any]]) -> str:
    """Tabulate the digits: means over seeds, and the differences to epsilon 0 paired by seed."""
    by_epsilon: dict[float, dict[int, dict[str, float]]] = {}
    for run in runs:
        by_epsilon.setdefault(run["epsilon"], {})[run["seed"]] = run
    rows: list[list[str | float | None]] = []
    for epsilon in sorted(by_epsilon):
        found = by_epsilon[epsilon]
        values = [_mean(seed_mean({seed: run[key] for seed, run in found.items()})) for key in DIGITS]
        rows.append([f"{epsilon:g}", str(len(found)), *values])
    stock = by_epsilon.get(0.0, {})
    for epsilon in sorted(by_epsilon):
        if epsilon and stock:
            pairs = [
                seed_difference(key, {s: r[key] for s, r in stock.items()},
                                {s: r[key] for s, r in by_epsilon[epsilon].items()}) for key in DIGITS
            ]  # fmt: skip
            rows.append([f"{epsilon:g} minus 0", str(pairs[0].n), *map(difference_text, pairs)])
    return to_markdown(["epsilon", "seeds", *DIGITS.values()], rows)


def cost(results: Sequence[CellResult]) -> str:
    """Say what the runs took and what they were made with."""
    done = [r for r in results if r.state is State.DONE]
    minutes = fmean(r.seconds for r in done) / 60
    return f"{len(done)} runs, {minutes:.0f} minutes each in the mean (two at a time on two shared cores)."


def _all_arms(one: ConditionNumbers) -> list[ArmNumbers]:
    return [a for a in ([one.stock] if one.stock is not None else []) + list(one.arms) if a.done]


def _mean(one: SeedMean | None) -> str:
    if one is None:
        return ""
    ends = f" ({span_text(one.low, one.high, decimals=3)})" if len(one.values) > 1 else ""
    return f"{number(one.mean, decimals=3)}{ends}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _plain(one: SeedMean | None) -> str:
    return "(undefined)" if one is None else f"{one.mean:.3f}"


def _overfit(one: ConditionNumbers, arm: ArmNumbers) -> tuple[str, str, str] | None:
    """Compare the gap between training and validation AP with stock's."""
    if one.stock is None or AP not in one.stock.overfit or AP not in arm.overfit:
        return None
    a, b = one.stock.overfit[AP].values, arm.overfit[AP].values
    if not a.keys() & b.keys():
        return None
    d = seed_difference(AP, a, b)
    return difference_text(d), _p(d.p) if d.n > 1 else "", f"{sum(v > 0 for v in d.values.values())} of {d.n}"


STUDY_PARTS: dict[str, Callable[[Sequence[CellResult]], str]] = {
    "answer": answer, "arms": arms, "cost": cost, "decisions": decisions, "differences": differences, "seeds": seeds,
}  # fmt: skip


def part(name: str, kind: str, raw: Path = RAW) -> str:
    """Write one part of a page.

    Args:
        name: Name of the raw file.
        kind: One of STUDY_PARTS, or ``table`` of the digits.
        raw: Where raw files are.

    Returns:
        Markdown, with a newline at its end.

    Raises:
        ValueError: If there is no such part or raw file.
    """
    if not (raw / f"{name}.json").is_file():
        raise ArgumentError(f"results: expected a raw file {name}.json in docs/results, got none.")
    if kind == "table":
        return digits_table(json.loads((raw / f"{name}.json").read_text("utf-8"))).rstrip() + "\n"
    if kind not in STUDY_PARTS:
        raise ArgumentError(f"results: expected one of {', '.join([*STUDY_PARTS, 'table'])}, got {kind!r}.")
    return STUDY_PARTS[kind](read_study(name, raw)).rstrip() + "\n"


# Pages and pictures ---------------------------------------------------------------------------------------------------


def filled(text: str, raw: Path = RAW) -> str:
    """Write all parts of a page anew.

    Args:
        text: The page.
        raw: Where raw files are.

    Returns:
        The page with its parts as the raw files have them.
    """
    return MARK.sub(lambda m: m[1] + part(m[2], m[3], raw) + m[5], text)


def pictures(name: str, raw: Path = RAW, images: Path = IMAGES) -> list[Path]:
    """Draw the pictures of a study, with the checksum of its raw file in each.

    Args:
        name: Name of the raw file.
        raw: Where raw files are.
        images: Where pictures go.

    Returns:
        The pictures.
    """
    results = read_study(name, raw)
    numbers = study_numbers(results)
    shown = {}
    for one, decision in zip(numbers, map(decide, numbers), strict=True):
        first = decision.arm.arm if decision.arm is not None else None
        shown[one.condition] = [a.arm for a in plots_study.best_arms(one, first)]
    drawn = {
        "reliability": plots_study.reliability_of_arms(numbers, results, shown),
        "trade_off": plots_study.trade_off(numbers),
    }
    images.mkdir(parents=True, exist_ok=True)
    files = []
    for kind, figure in drawn.items():
        files.append(images / f"results_{name}_{kind}.png")
        figure.savefig(files[-1], dpi=160, metadata={"Source": sha256_of(raw / f"{name}.json")})
    return files


def stale(raw: Path = RAW, images: Path = IMAGES, pages: Sequence[Path] = PAGES) -> list[str]:
    """List what differs from the raw files.

    Args:
        raw: Where raw files are.
        images: Where pictures are.
        pages: The pages.

    Returns:
        A sentence for each page or picture that is not what the raw files give.
    """
    from PIL import Image

    found = []
    for page in pages:
        text = page.read_text("utf-8")
        found += [f"{page.name}: {m[2]}.{m[3]} is not what docs/results/{m[2]}.json gives."
                  for m in MARK.finditer(text) if part(m[2], m[3], raw) != m[4]]  # fmt: skip
    for picture in sorted(images.glob("results_*.png")):
        name = picture.stem.removeprefix("results_").removesuffix("_reliability").removesuffix("_trade_off")
        with Image.open(picture) as image:
            if image.info.get("Source") != sha256_of(raw / f"{name}.json"):
                found.append(f"{picture.name}: drawn from another docs/results/{name}.json.")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where pages and raw files differ")
    parser.add_argument("--add", metavar="NAME", help="take the cells of --folder into docs/results/NAME.json first")
    parser.add_argument("--folder", type=Path, help="a study's folder, or that of scripts/classify_digits.py")
    given = parser.parse_args()
    if (given.add is None) != (given.folder is None) or (given.check and given.add):
        parser.error("--add and --folder go together, and not with --check")
    if given.check:
        found = stale()
        print("\n".join(found) or "Pages and pictures are what the raw files give.")
        return int(bool(found))
    if given.add:
        add(given.add, given.folder)
    for raw in sorted(RAW.glob("*.json")):
        if "cell" in json.loads(raw.read_text("utf-8"))[0]:
            pictures(raw.stem)
    for page in PAGES:
        write_atomically(page, filled(page.read_text("utf-8")).encode("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
