# SPDX-License-Identifier: AGPL-3.0-or-later
"""The lean form: it never makes a dense target or a transposed copy of the logits, and is cheaper than stock."""
