# SPDX-License-Identifier: AGPL-3.0-or-later
"""What det-ls assumes of Ultralytics: one version range, one checker, and every patch as a context manager."""
