# SPDX-License-Identifier: AGPL-3.0-or-later
"""The smoothed criteria: stock's own, with only the classification term replaced. Read ``dense`` first."""
