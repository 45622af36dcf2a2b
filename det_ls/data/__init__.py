# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets: find them, read COCO files and YOLO labels, draw the phantom."""
