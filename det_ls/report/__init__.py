# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reports: pictures, and self-contained HTML pages."""

from det_ls.report.comparison_page import write_comparison as write_comparison
from det_ls.report.evaluation_page import write_report as write_report
