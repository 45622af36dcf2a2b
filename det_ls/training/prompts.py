# SPDX-License-Identifier: AGPL-3.0-or-later
"""Training with text prompts, as in YOLO-World: a class channel stands for a prompt, not for a class.

Ultralytics draws up to 80 prompts for each image, the classes in it first: channel 0 is another class in every image.
With one epsilon and no table P treats all channels alike, so that their order does not matter. What names a class would
smooth another one in each image, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from det_ls.base.errors import ArgumentError
from det_ls.smoothing.request import Request
from det_ls.smoothing.settings import DEFAULT_CLASS
from det_ls.training.trainer import LabelSmoothingTrainerMixin

MAX_PROMPTS = 80  # as in Ultralytics' get_model and RandomLoadText


class PromptTrainerMixin(LabelSmoothingTrainerMixin):
    """The label-smoothing keys for a trainer whose class channels are prompts."""

    @classmethod
    def target_names(cls, request: Request, names: Sequence[str]) -> list[str]:
        """Number the prompts of an image.

        Args:
            request: The keys.
            names: The data set's class names.

        Returns:
            As many names as an image has prompts.

        Raises:
            ValueError: If a key distinguishes classes.
        """
        epsilon = request.smoothing.label_smoothing
        named = isinstance(epsilon, Mapping) and set(epsilon) - {DEFAULT_CLASS}
        if request.smoothing.enabled and (named or request.table is not None):
            key = "label_smoothing" if named else "label_smoothing_similarity"
            raise ArgumentError(
                f"{key}: expected one epsilon for all classes and no table with {cls.__name__}, whose class channels "
                "are an image's prompts in an order of their own, got values for single classes."
            )
        return [f"prompt {i}" for i in range(min(len(names), MAX_PROMPTS))]
