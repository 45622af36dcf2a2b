# SPDX-License-Identifier: AGPL-3.0-or-later
"""Precision-recall curves are pycocotools'; score curves are counts that anyone can repeat."""

from __future__ import annotations

import numpy as np
import pytest
from boxed_sets import SETS, load

from det_ls.metrics.curves_pr import precision_recall, score_curves
from det_ls.metrics.matching import build_table, evaluate_checked, table_from_coco


@pytest.mark.parametrize("name", SETS)
def test_curves_equal_pycocotools(name: str) -> None:
    evaluated = evaluate_checked(*load(name))
    table = table_from_coco(evaluated)
    for t, iou in ((0, 0.5), (5, 0.75)):
        ours = precision_recall(table, iou)
        for values, key in ((ours.precision, "precision"), (ours.score, "scores")):
            theirs = evaluated.eval[key][t, :, :, 0, -1].T
            np.testing.assert_allclose(np.nan_to_num(values, nan=-1.0), theirs, rtol=0, atol=1e-12)
        assert ours.mean.mean() == pytest.approx(np.nanmean(ours.ap), abs=1e-12)
    assert precision_recall(table).ap[table.has_gt].mean() == pytest.approx(evaluated.stats[1], abs=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_score_curves_are_what_a_threshold_keeps(name: str) -> None:
    table = build_table(*load(name))
    exact = np.sort(table.score)[len(table.score) // 2]  # a threshold keeps the score that equals it
    thresholds = np.unique([0.0, 0.25, exact, 0.9, 1.0])
    curves = score_curves(table, thresholds)
    has = table.has_gt
    for k, threshold in enumerate(thresholds):
        kept = table.filter(table.score >= threshold)
        matches = kept.matches(0.5)
        for c in range(table.n_classes):
            mine = kept.cls == c
            tp, fp = (matches.tp & mine).sum(), (matches.kept & ~matches.tp & mine).sum()
            assert (curves.tp[c, k], curves.fp[c, k]) == (tp, fp)
            if has[c]:
                assert curves.f1[c, k] == pytest.approx(2 * tp / (2 * tp + fp + table.n_gt[c] - tp))
        counted = matches.kept & has[kept.cls]
        tp = matches.tp.sum()
        if counted.any():
            precision, recall = tp / counted.sum(), tp / table.n_gt.sum()
            assert (curves.micro_precision[k], curves.micro_recall[k]) == pytest.approx((precision, recall))
            if tp:
                assert curves.micro_f1[k] == pytest.approx(2 / (1 / precision + 1 / recall))
        assert curves.macro_recall[k] == pytest.approx(np.nanmean(curves.recall[has, k]))
        if not np.isnan(curves.precision[has, k]).all():
            assert curves.macro_precision[k] == pytest.approx(np.nanmean(curves.precision[has, k]))
    best, value = curves.best(curves.micro_f1)
    assert value == np.nanmax(curves.micro_f1)
    assert best in thresholds


def test_where_nothing_is_defined_curves_are_nan() -> None:
    gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    table = build_table(gt, [])
    assert np.isnan(precision_recall(table).mean).all()
    curves = score_curves(table)
    assert np.isnan([curves.micro_f1, curves.macro_f1, curves.micro_precision, curves.macro_recall]).all()
    assert np.isnan(curves.best(curves.macro_f1)).all()
    with pytest.raises(ValueError, match="rising"):
        score_curves(table, np.array([0.5, 0.5]))
