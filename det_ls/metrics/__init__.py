# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every number of an evaluation, from one table of matched detections, with its uncertainty."""

from det_ls.metrics.summary import DetectionMetrics as DetectionMetrics
from det_ls.metrics.summary import detection_metrics as detection_metrics
from det_ls.metrics.summary import metrics_from_coco as metrics_from_coco
