# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluate a detector, or detections from any detector, and compare two."""
