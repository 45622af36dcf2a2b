# SPDX-License-Identifier: AGPL-3.0-or-later
"""The synthetic data set, under the name that data YAMLs use (:mod:`det_ls.data.phantom`)."""

from det_ls.data.phantom import write_phantom as write_phantom
