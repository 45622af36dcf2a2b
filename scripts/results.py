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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_tables import STUDY_PARTS, TITLES, digits_table, in_common, released, summary

from det_ls.base.errors import ArgumentError, DataError
from det_ls.base.files import sha256_of, write_atomically
from det_ls.report import plots_study
from det_ls.studies.cell import CELL_FILE, result_of
from det_ls.studies.decision import decide
from det_ls.studies.records import CellResult, State
from det_ls.studies.statistics import AP, GAP, study_numbers

ROOT = Path(__file__).resolve().parents[1]
RAW, IMAGES = ROOT / "docs" / "results", ROOT / "docs" / "images"
PAGES = (ROOT / "docs" / "results.md", ROOT / "README.md")
MARK = re.compile(r"(<!-- results: (\w+)\.(\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CURVES = ("epoch", "train/cls_loss", "label_smoothing")
OF_A_RUN = {"seed", "data", "device", "workers", "cache", "plots"}
PICTURES = ("reliability", "trade_off", "AP", "gap", "overfit")


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
    entries = {_identity(entry): entry for entry in known}
    for entry in [*cells, *runs]:
        _check_alike(entry, known)
        there = entries.get(_identity(entry), {})
        if entry.get("state") == State.DONE.value or there.get("state") != State.DONE.value:  # no failure in its place
            entries[_identity(entry)] = entry
    raw.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entries[key]) for key in sorted(entries))  # a run a line
    write_atomically(target, f"[\n{lines}\n]\n".encode())
    return target


def _check_alike(entry: dict[str, Any], known: Sequence[dict[str, Any]]) -> None:
    """Raise unless a run was trained as the published ones, its seed, data set and smoothing apart."""
    for other in known if "config" in entry else ():
        one, two = ({k: v for k, v in e["config"].items() if k not in OF_A_RUN and not k.startswith("label_smoothing")}
                    for e in (entry, other))  # fmt: skip
        if one != two:
            key = next(k for k in {**one, **two} if one.get(k) != two.get(k))
            raise DataError(f"--folder: expected {key}={two.get(key)} as published, got {one.get(key)} in a run of it.")
        if "measure" in entry and entry["measure"] != other.get("measure", entry["measure"]):
            raise DataError(f"--folder: expected runs measured as the published, got {entry['measure']} in one of it.")


def _slim(content: dict[str, Any]) -> dict[str, Any]:
    """Keep of a cell what a page or a reader uses: six digits, and of the curves three columns."""
    curves = {key: values for key, values in content.get("curves", {}).items() if key in CURVES}
    wanted = ("cell", "state", "measured", "error", "config", "noise", "seconds", "versions")
    kept = {key: content[key] for key in wanted if key in content}
    if "measure" in content.get("resolved", {}):
        kept["measure"] = content["resolved"]["measure"]
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


def part(name: str, kind: str, raw: Path = RAW) -> str:
    """Write one part of a page.

    Args:
        name: Name of the raw file, or ``all`` for what stands beside each other of all studies.
        kind: One of STUDY_PARTS, ``table`` of the digits, or ``summary`` of all.
        raw: Where raw files are.

    Returns:
        Markdown, with a newline at its end.

    Raises:
        ValueError: If there is no such part or raw file.
    """
    if (name, kind) == ("all", "summary"):
        there = [one for one in TITLES if (raw / f"{one}.json").is_file()]
        return summary({one: read_study(one, raw) for one in there}).rstrip() + "\n"
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
    numbers = study_numbers(released(results))
    shown = {}
    for one, decision in zip(numbers, map(decide, numbers), strict=True):
        first = decision.arm.arm if decision.arm is not None else None
        shown[one.condition] = [a.arm for a in plots_study.best_arms(one, first)]
    level = study_numbers(in_common(results))
    gap = "|mean score \N{MINUS SIGN} precision|, kept boxes"
    drawn = {
        "reliability": plots_study.reliability_of_arms(numbers, results, shown, columns=3),
        "trade_off": plots_study.trade_off(level),
    }
    if any(len(one.arms) > 1 for one in level):  # one smoothed arm makes no curve
        drawn |= {
            "AP": plots_study.against_epsilon(level, AP, "val", "AP"),
            "gap": plots_study.against_epsilon(level, GAP, "val", gap),
            "overfit": plots_study.against_epsilon(level, AP, "overfit", "AP, train \N{MINUS SIGN} val", rival=False),
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
        found += [f"{page.name}: {m[2]}.{m[3]} is not what docs/results/{'*' if m[2] == 'all' else m[2]}.json gives."
                  for m in MARK.finditer(text) if part(m[2], m[3], raw) != m[4]]  # fmt: skip
    for page in pages:
        linked = re.findall(r"images/(results_\w+\.png)", page.read_text("utf-8"))
        found += [f"{page.name}: {name} is not there." for name in linked if not (images / name).is_file()]
    for picture in sorted(images.glob("results_*.png")):
        name = re.sub(rf"^results_|_({'|'.join(PICTURES)})$", "", picture.stem)
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
