# SPDX-License-Identifier: AGPL-3.0-or-later
"""What det-ls assumes of Ultralytics, and every place where it reaches into it."""
