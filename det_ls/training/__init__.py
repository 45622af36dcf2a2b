# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' trainers and YOLO with the label-smoothing keys."""
