# SPDX-License-Identifier: AGPL-3.0-or-later
"""A calibration as one self-contained HTML page."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from det_ls.base.version import __version__
from det_ls.calibration.judge import Change
from det_ls.calibration.results import Calibration
from det_ls.report.calibration_words import (
    METHODS,
    PROPER,
    calibration_findings,
    conf_text,
    cross_fitted_text,
    judgement,
    typed_before_after,
)
from det_ls.report.figures import inlined
from det_ls.report.page_parts import check_target, write_page
from det_ls.report.plots_calibration import reliability_before_after, score_map
from det_ls.report.rows import Row, flat
from det_ls.report.words import DASH, better_text, number, row_decimals, span_text, unjudged_text
from det_ls.uncertainty.bootstrap import number_of

CALIBRATION_FILES = ("report.html",)
_OF_IOU, _OF_TP = ("brier_iou", "LaECE0", "signed_gap_iou"), ("brier", "nll", "DECE", "signed_gap")
_TAGS = {"better": "good", "worse": "bad", "no difference shown": "none", "no interval": "none"}
# The one number that an evaluation does not report.
_BRIER_IOU = ("Squared distance from the IoU", "Mean squared distance of scores from the IoU that the boxes have.")
_CAPTION = (
    "Kept boxes, the same before (solid) and after (dashed); on the dashed diagonal, scores deliver what they promise, "
    "below it they promise too much. Hollow markers hold fewer than 10 boxes, and no line leads through them."
)


def write_calibration(path: str | Path, result: Calibration, *, title: str, exist_ok: bool = False) -> Path:
    """Write a calibration as one HTML page that needs nothing else.

    Args:
        path: The file; its folder is made if need be.
        result: The calibration, with intervals if those are to be shown. Absolute paths are shortened.
        title: What the page is about.
        exist_ok: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        FileExistsError: The file is there and ``exist_ok`` is False.
    """
    target = check_target(path, exist_ok)
    counts, order = result.counts, (_OF_IOU, _OF_TP) if result.target == "iou" else (_OF_TP, _OF_IOU)
    keys = [key for group in order for key in group]
    asked = {"iou": "Do scores meet the IoU?", "tp": "Do scores meet the precision?"}
    aims = ("iou", "tp") if result.target == "iou" else ("tp", "iou")
    figures = [
        inlined(reliability_before_after(result, aim), f"f-{aim}", asked[aim], f"{said} {_CAPTION}")
        for aim, said in zip(aims, ("What the map aims at.", "What the map does not aim at."), strict=True)
    ]
    what = "A steep line tells scores further apart, a flat one brings them together; the dashed diagonal changes none."
    figures.append(inlined(score_map(result), "f-map", "What becomes of a score?", what))
    page = {
        "title": title,
        "first": "",
        "done": "calibrated",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "subtitle": f"{METHODS[result.method]}, target {result.target or DASH}; {counts['images']:,} images, "
        f"{counts['detections']:,} boxes, {counts['kept']:,} of them kept",
        "tiles": _tiles(result),
        "findings": calibration_findings(result),
        "how_judged": cross_fitted_text(result),
        "intervals": any(change.difference_interval for change in result.numbers["kept"].values()),
        "kept": [_row(key, result.numbers["kept"][key]) for key in keys],
        "kept_boxes": f"{counts['kept']:,}",
        "of_all": [_row(key, result.numbers["all"][key]) for key in keys],
        "all_boxes": f"{counts['detections']:,}",
        "figures": figures,
        "thresholds": [
            {"name": t.name, "before": conf_text(t.before), "after": conf_text(t.after)}
            | {"right": f"{t.n_tp:,}", "wrong": f"{t.n_fp:,}", "objects": f"{t.n_objects:,}"}
            for t in result.thresholds
        ],
        "typed": typed_before_after(result),
        "pipeline": _pipeline_rows(result),
        "estimates": _estimate_rows(result),
        "by_class": len(result.estimates) > 1,
        "trainings": [],
        "protocol": _settings(result),
        "version": __version__,
    }
    return write_page(target, "calibration.html", page)


def _tiles(result: Calibration) -> list[Row]:
    """Show the few numbers that come first."""
    kept, typed = result.numbers["kept"], typed_before_after(result)
    tiles = []
    for key in ("LaECE0", "DECE", "signed_gap"):
        change = kept[key]
        signed = key == "signed_gap"
        tiles.append(
            {
                "name": {"signed_gap": "Score minus precision"}.get(key, key) + ", kept boxes",
                "value": number(change.after, signed=signed),
                "more": f"before {number(change.before, signed=signed)}",
                "words": False,
            }
        )
    value, more = ("one a class", "see the table") if typed is None else (typed[1], f"before {typed[0]}")
    return [*tiles, {"name": "Score threshold to type", "value": value, "more": more, "words": typed is None}]


def _row(key: str, change: Change) -> Row:
    """Show a number before and after."""
    span = change.difference_interval
    decimals = row_decimals(change.difference, *(span or (None, None)))
    signed = key.startswith("signed")
    if key == "brier_iou":
        name, what, better, why = (*_BRIER_IOU, "lower", "")
    else:
        about = number_of("kept", key)
        name, what, better = about.name, about.what, better_text(about)
        why = unjudged_text(about) if about.biased else ""
    verdict = judgement(change) if key in PROPER else "no verdict"
    return {
        "key": key,
        "name": name,
        "what": what,
        "better": better,
        "undefined": change.before != change.before,
        "before": number(change.before, signed=signed, decimals=decimals),
        "after": number(change.after, signed=signed, decimals=decimals),
        "difference": number(change.difference, signed=True, decimals=decimals),
        "interval": "" if span is None else span_text(*span, signed=True, decimals=decimals),
        "verdict": verdict,
        "tag": _TAGS.get(verdict, "none"),
        "why": why,
    }


def _pipeline_rows(result: Calibration) -> list[Row]:
    """Show AP and the number of boxes of the whole pipeline."""
    rows = []
    for key, change in result.pipeline.items():
        decimals = 0 if key == "detections" else 4
        name = "Boxes" if key == "detections" else key
        ends = [f"{v:,.{decimals}f}" for v in (change.before, change.after)]
        rows.append({"name": name, "before": ends[0], "after": ends[1]})
    conf = result.record.get("settings", {}).get("conf")
    if rows and conf:
        low, high = min(after := result.carried(float(conf))), max(after)
        text = conf_text(low) if low == high else f"{conf_text(low)} to {conf_text(high)}"
        rows.append({"name": "What the smallest score became", "before": f"{conf:g}", "after": text})
    return rows


def _estimate_rows(result: Calibration) -> list[Row]:
    """Show the parameters of each class."""
    rows = []
    for e in result.estimates:
        spans = (e.a_interval, e.b_interval)
        texts = ["" if s is None else span_text(*s, decimals=row_decimals(None, *s)) for s in spans]
        rows.append(
            {
                "name": e.name or "shared",
                "a": number(e.a),
                "a_interval": texts[0],
                "b": number(e.b),
                "b_interval": texts[1],
                "n": f"{e.n:,}",
                "own": "" if e.name is None else f"{e.own:.0%}",
            }
        )
    return rows


def _settings(result: Calibration) -> list[tuple[str, str]]:
    """List how the calibration came about."""
    named = {
        "method": result.method,
        "target": result.target or None,
        "weighting": result.weighting or None,
        "weights": None if result.weights is None else str(result.weights),
    }
    counted = {what: f"{n:,}" for what, n in result.counts.items()}
    return flat({**named, **result.record, "counted": counted})
