# SPDX-License-Identifier: AGPL-3.0-or-later
"""An evaluation as pictures and as one self-contained page."""

from det_ls.report.page import write_comparison as write_comparison
from det_ls.report.page import write_report as write_report
