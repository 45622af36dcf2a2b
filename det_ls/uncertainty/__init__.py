# SPDX-License-Identifier: AGPL-3.0-or-later
"""How far a number can be believed: bootstrap, floors, paired differences."""
