# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calibrate a detector after training: fit a map of its scores, judge it honestly, and fold it into the model."""
