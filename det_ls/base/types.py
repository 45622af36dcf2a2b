# SPDX-License-Identifier: AGPL-3.0-or-later
"""Types that several packages name."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
"""What a JSON object holds."""
ImageId = int | str
"""An image's id in COCO files."""
