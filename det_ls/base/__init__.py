# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every package may use: checks of arguments, atomic files, the version."""
