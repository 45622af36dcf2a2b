# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every number of an evaluation, from one table of matched detections."""
