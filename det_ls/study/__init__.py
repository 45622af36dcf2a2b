# SPDX-License-Identifier: AGPL-3.0-or-later
"""Studies: a grid of training runs over arms, conditions and seeds, its numbers and the decision that they allow."""
