# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the command line prints of an evaluation or a comparison: ASCII, one line a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_ls.evaluation.comparison import PairedEvaluation
from det_ls.evaluation.measure import DetectionMetrics
from det_ls.evaluation.results import Evaluation
from det_ls.report.comparison_words import adjusted_note, p_text, seeds_sentence
from det_ls.report.differences import Difference, differences
from det_ls.report.findings import group_findings
from det_ls.report.measured import FIRST, LEADING, OF_ALL, Which, measured, population_text
from det_ls.report.operating import chosen
from det_ls.report.training import cautions
from det_ls.report.words import ascii_text, floor_text, interval_text, number, overlap_text, span_text, verdict_text

_HEADS = ("value", "interval", "IoU", "bins")


def evaluation_text(evaluation: Evaluation) -> str:
    """Write an evaluation's leading numbers with intervals, floors and how they were counted.

    Args:
        evaluation: The evaluation.

    Returns:
        The protocol, then by population one line a number: name, value, interval, IoU of its true positives, bins, and
        for a calibration error what a calibrated detector would read; last which threshold to use, and what to be
        careful about. An interval that does not say where the true error lies has an asterisk, which a line explains.
    """
    metrics, protocol = evaluation.metrics, evaluation.protocol
    kept = [which for which in LEADING if which not in FIRST]
    point = chosen(metrics, protocol)
    lines = [
        protocol_line(metrics),
        *_measured(protocol),
        f"{'':>14}  {_HEADS[0]:>9}  {_HEADS[1]:>20}  {_HEADS[2]:>9}  {_HEADS[3]:>14}  "
        "a calibrated detector's 95th percentile",
        population_text(metrics, "all", protocol),
        *(_line(metrics, which) for which in FIRST),
        f"{population_text(metrics, 'kept', protocol)}, {point.typed}",
        *(_line(metrics, which) for which in kept),
        population_text(metrics, "all", protocol),
        *(_line(metrics, which) for which in OF_ALL),
    ]
    if evaluation.train is not None:
        lines.append(_gap(metrics, evaluation.train.metrics))
    if any("*" in line for line in lines):
        lines.append("* uncertainty of the estimator, which is biased upwards; not where the true error lies")
    lines.append(f"operating point: {point.typed}. {point.text}")
    lines += [f"careful: {lead}. {text}" for lead, text in cautions(protocol.get("training"))]
    lines += [f"{f.topic.lower()}: {f.lead}. {f.text}" for f in group_findings(protocol.get("groups"))]
    return ascii_text("\n".join(lines))


def comparison_text(pair: PairedEvaluation) -> str:
    """Write a comparison's leading differences.

    Args:
        pair: The comparison.

    Returns:
        Whether seeds were measured; the differences that were declared in advance, then those of the kept boxes and of
        all boxes, one line a number; and how the p-values are adjusted.
    """
    found = differences(pair)
    declared = [d for d in found.values() if d.declared]
    kept, whole = (
        [d for which in wanted if (d := found.get(which)) is not None and not d.declared]
        for wanted in (LEADING, OF_ALL)
    )
    lines = [
        seeds_sentence(pair),
        f"b - a with a = {pair.names[0]}, b = {pair.names[1]}; {_over(pair)}",
        f"{'':>14}  {'boxes':>5}  {'a':>9}  {'b':>9}  {'b - a':>9}  {'interval':>20}  result",
        "declared in advance",
        *(_difference(d, pair) for d in declared),
        "others, adjusted for being many",
        *(_difference(d, pair) for d in (*kept, *whole)),
        adjusted_note(found),
    ]
    return ascii_text("\n".join(line for line in lines if line))


def protocol_line(metrics: DetectionMetrics) -> str:
    """Say in one line how the numbers of an evaluation were counted, and on how much.

    Args:
        metrics: The numbers.

    Returns:
        Protocol, matching, IoU of a true positive, bins, images, objects and detections.
    """
    precision, binned = metrics.definitions["DECE"], metrics.definitions["LaECE0"]
    counts = metrics.counts
    return (
        f"protocol {metrics.protocol}; matching {precision['matching']}; true positives from IoU {precision['iou']:g} "
        f"unless said otherwise; DECE {precision['bins']} and LaECE {binned['bins']} bins; "
        f"{counts['images']:,} images, {counts['objects']:,} objects, {counts['detections']:,} detections"
    )


def _measured(protocol: Mapping[str, Any]) -> list[str]:
    """Say what is measured of a model that predicts more than upright boxes."""
    if protocol.get("task", "detect") == "detect":
        return []
    left_out = protocol.get("not_measured")
    return [
        f"task {protocol['task']}: {protocol['measured']} are measured" + (f", {left_out} are not" * bool(left_out))
    ]


def _line(metrics: DetectionMetrics, which: Which) -> str:
    """Write one number."""
    one = measured(metrics, which)
    key = one.about.key
    if one.value is None:
        return f"{key:>14}  undefined: {one.reason}"
    span = interval_text(one.interval, decimals=4)
    if span:
        span += "*" if one.interval is not None and one.interval.of == "estimator" else " "
    how: Mapping[str, Any] = one.definition
    line = (
        f"{key:>14}  {number(one.value, decimals=4):>9}  {span:>20}  {overlap_text(how, named=False):>9}  "
        f"{how['bins'] or '':>14}"
    )
    if one.floor is not None:
        line += f"  {number(one.floor.p95, decimals=4)}, {floor_text(one.value, one.floor)}"
    return line.rstrip()


def _gap(val: DetectionMetrics, train: DetectionMetrics) -> str:
    parts = []
    for which in LEADING:
        a, b = measured(train, which), measured(val, which)
        if a.value is not None and b.value is not None and not a.reason and not b.reason:
            parts.append(f"{which[1]} {number(a.value - b.value, signed=True, decimals=4)}")
    return f"train minus val: {', '.join(parts)}"


def _over(pair: PairedEvaluation) -> str:
    if pair.seeds is None:
        return "paired intervals over the choice of images"
    return f"intervals over training seeds, {'paired' if pair.paired else 'not paired'} by seed"


def _difference(found: Difference, pair: PairedEvaluation) -> str:
    """Write one difference."""
    decimals = max(4, found.decimals)
    a, b = (number(v, decimals=decimals) for v in (found.mean_a, found.mean_b))
    line = (
        f"{found.about.key:>14}  {found.about.population:>5}  {a:>9}  {b:>9}  "
        f"{number(found.difference, signed=True, decimals=decimals):>9}  "
        f"{span_text(found.low, found.high, signed=True, decimals=decimals):>20}  "
        f"{verdict_text(found.verdict, pair.names[1])}"
    )
    if found.adjusted is not None:
        line += f", {p_text(found)}"
    if found.images is not None:
        line += f"; over images {interval_text(found.images, signed=True, decimals=decimals)}"
    return line
