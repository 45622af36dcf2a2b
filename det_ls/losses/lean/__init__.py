# SPDX-License-Identifier: AGPL-3.0-or-later
"""The fast form of the smoothed criterion."""
