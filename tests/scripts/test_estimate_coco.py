# SPDX-License-Identifier: AGPL-3.0-or-later
"""scripts/estimate_coco.py scales a measured throughput to COCO, and draws images that stock reads."""

from __future__ import annotations

import estimate_coco
import pytest

from det_ls.base.errors import DetLsError


def test_the_estimate_is_coco_times_epochs_over_the_throughput(monkeypatch):
    asked = {}

    def measured(keys, images):
        asked.update(keys, images=images)
        return 118.287, 4.0

    monkeypatch.setattr(estimate_coco, "throughput", measured)
    text = estimate_coco.estimate(
        ["model=yolo26n.yaml", "data=coco.yaml", "epochs=36", "device=0,1", "label_smoothing=0.1"]
    )
    assert "about 10 hours on 2 GPUs" in text  # 36 epochs of 1,000 s
    assert asked == {"model": "yolo26n.yaml", "device": (0, 1), "label_smoothing": 0.1, "images": 2048}


@pytest.mark.parametrize(
    "words", [["epochs=3"], ["model=yolo26n.yaml", "images=0"], ["model=yolo26n.yaml", "images=x"]]
)
def test_what_cannot_be_estimated_is_one_sentence(words):
    with pytest.raises(DetLsError, match=r"^(model|images): expected .*, got .*\.$"):
        estimate_coco.estimate(words)


def test_the_drawn_images_are_read_by_stock_with_their_boxes(tmp_path):
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(estimate_coco.draw(tmp_path / "set", 8)))
    labels = YOLODataset(img_path=data["train"], data=data, task="detect", imgsz=64).labels
    assert len(labels) == 8
    assert 20 < sum(len(label["cls"]) for label in labels) < 100  # 7.2 an image in the mean
