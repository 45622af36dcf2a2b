# SPDX-License-Identifier: AGPL-3.0-or-later
"""The maths of label smoothing and its keys, without Ultralytics."""
