# SPDX-License-Identifier: AGPL-3.0-or-later
"""COCO ground truth and detections: read them, check them, evaluate them with pycocotools.

Boxes are ``[left, top, width, height]`` in pixels of the original image, as in COCO's files. Whatever a caller passes
as loaded JSON is left as it is: pycocotools writes into its input, so it only gets copies.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import warnings
import zlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from det_ls.base.arguments import examples, printable
from det_ls.base.errors import DataError, MissingFileError
from det_ls.base.folders import is_file
from det_ls.base.memory import paused_collection
from det_ls.base.types import ImageId, Json
from det_ls.data.json_numbers import numbers, refuse_booleans
from det_ls.data.oriented import ORIENTED, enclosing, is_oriented, oriented_evaluation
from det_ls.data.stems import ids_by_stem

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

Floats = NDArray[np.float64]

LARGEST_ID = 2**53  # of those that a float holds exactly
LARGEST_COORDINATE = 1e6  # pixels: beyond it a box is a mistake, not an object


@paused_collection()
def load_coco(source: object, what: str) -> Any:
    """Read a JSON file, or return JSON that is loaded already.

    Args:
        source: Path of a ``.json`` or ``.json.gz`` file, or the loaded content.
        what: The argument's name for error messages.

    Returns:
        The content, unchecked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not JSON.
    """
    if not isinstance(source, (str, PurePath)):
        return source
    path = Path(source)
    if not is_file(path):
        raise MissingFileError(f"{what}: expected a COCO JSON file, got '{path}', which does not exist.")
    try:
        content = path.read_bytes()
        return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (ValueError, EOFError, OSError, RecursionError, zlib.error) as error:
        raise DataError(f"{what}: expected a JSON file, got '{path}', which cannot be read as one.") from error


@paused_collection()
def read_ground_truth(source: object, what: str = "gt") -> Json:
    """Read and check COCO instances.

    A missing ``iscrowd`` becomes 0 and a missing ``area`` the box's. Annotation ids are renumbered from 1 unless they
    are unique positive integers: pycocotools keeps them as floats and takes 0 for "not matched". Category names
    default to their ids. Objects with an oriented box (`det_ls.data.oriented`) keep it; their ``bbox`` is the upright
    box around it.

    Args:
        source: Path of an instances JSON, or its loaded content.
        what: The argument's name for error messages.

    Returns:
        A new dictionary with ``images``, ``annotations`` and ``categories``, holding only what evaluation needs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a valid set of COCO instances.
    """
    raw = load_coco(source, what)
    keys = ("images", "annotations", "categories")
    if not isinstance(raw, Mapping) or not all(isinstance(raw.get(key), list) for key in keys):
        raise DataError(f"{what}: expected COCO instances with lists of {', '.join(keys)}, got something else.")
    images, categories = list(raw["images"]), list(raw["categories"])
    image_ids = _unique_ids(images, f"{what}.images")
    refuse_booleans(images, ("width", "height"), f"{what}.images")
    category_ids = _unique_ids(categories, f"{what}.categories")
    annotations = list(raw["annotations"])
    refuse_booleans(annotations, ("id", "image_id", "category_id"), f"{what}.annotations")
    _check_references(annotations, "image_id", image_ids, f"{what}.annotations")
    _check_references(annotations, "category_id", category_ids, f"{what}.annotations")
    annotations = _with_upright_boxes(annotations, f"{what}.annotations")
    boxes = _boxes(annotations, f"{what}.annotations")
    _check_near(annotations, boxes, f"{what}.annotations")
    _check_crowds(annotations, f"{what}.annotations")
    _warn_of_duplicates(annotations, boxes, f"{what}.annotations")
    areas = numbers([a.get("area", _area(a, box)) for a, box in zip(annotations, boxes, strict=True)])
    if areas is None or areas.ndim != 1 or not ((areas >= 0) & (areas <= LARGEST_COORDINATE**2)).all():
        raise DataError(
            f"{what}.annotations: expected every area to be a number of square pixels from 0 to "
            f"{LARGEST_COORDINATE**2:g}, got others in image {examples(_odd_areas(annotations))}."
        )
    ids = [a.get("id") for a in annotations]
    if not all(isinstance(i, int) and 0 < i <= LARGEST_ID for i in ids) or len(set(ids)) != len(ids):
        ids = list(range(1, len(annotations) + 1))
    names = [printable(str(c.get("name", c["id"]))) for c in categories]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{what}.categories: expected different names, got {examples(repeated)} repeatedly.")
    return {
        "images": [
            {"id": plain_id(i["id"]), **{k: i[k] for k in ("file_name", "width", "height") if k in i}} for i in images
        ],
        "annotations": [
            {
                "id": i,
                "image_id": plain_id(a["image_id"]),
                "category_id": plain_id(a["category_id"]),
                "bbox": box,
                "area": area,
                "iscrowd": int(a.get("iscrowd", 0)),
                **_oriented(a),
            }
            for i, a, box, area in zip(ids, annotations, boxes, areas.tolist(), strict=True)
        ],
        "categories": [{"id": plain_id(c["id"]), "name": name} for c, name in zip(categories, names, strict=True)],
    }


@paused_collection()
def read_detections(source: object, gt: Json, what: str = "detections") -> list[Json]:
    """Read COCO results and check them against the ground truth.

    Results that name images by the stem of their files, as Ultralytics' ``save_json`` does, are matched to the
    ``file_name`` of the instances.

    Args:
        source: Path of a results JSON, or its loaded content; an empty list is valid.
        gt: What :func:`read_ground_truth` returned.
        what: The argument's name for error messages.

    Returns:
        New dictionaries with ``image_id``, ``category_id``, ``bbox`` and ``score`` only, and the oriented box where the
        ground truth has those.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a list of detections, if an image or category id is unknown to the ground truth, if a
            stem is that of several images, if a box or score is not a finite number, or if boxes are oriented where
            those of the ground truth are not, or the other way round.
    """
    raw = load_coco(source, what)
    if not isinstance(raw, Sequence) or isinstance(raw, (str, bytes)):
        raise DataError(f"{what}: expected a list of COCO results, got {type(raw).__name__}.")
    detections = list(raw)
    refuse_booleans(detections, ("image_id", "category_id"), what)
    if (ids := ids_by_stem(detections, gt, what)) is not None:
        detections = [{**d, "image_id": i} for d, i in zip(detections, ids, strict=True)]
    _check_references(detections, "image_id", [image["id"] for image in gt["images"]], what)
    _check_references(detections, "category_id", [category["id"] for category in gt["categories"]], what)
    oriented = is_oriented(gt)
    _check_kind(detections, gt, what)
    if oriented:
        detections = _with_upright_boxes(detections, what)
    boxes = _boxes(detections, what)
    _check_near(detections, boxes, what)
    scores = numbers([d.get("score") for d in detections])
    if scores is None or not np.isfinite(scores).all():
        bad = [d["image_id"] for d in detections if not _finite([d.get("score")])]
        raise DataError(f"{what}: expected every score to be a finite number, got others in image {examples(bad)}.")
    return [
        {
            "image_id": plain_id(d["image_id"]),
            "category_id": plain_id(d["category_id"]),
            "bbox": box,
            "score": score,
            **(_oriented(d) if oriented else {}),
        }
        for d, box, score in zip(detections, boxes, scores.tolist(), strict=True)
    ]


def coco_evaluate(gt: Json, detections: Sequence[Json]) -> COCOeval:
    """Evaluate boxes with pycocotools at its default parameters, without its prints.

    Where the ground truth has oriented boxes, the overlaps are those of oriented boxes, and all else is pycocotools'.

    Args:
        gt: What :func:`read_ground_truth` returned.
        detections: What :func:`read_detections` returned; may be empty, which pycocotools' own ``loadRes`` rejects.

    Returns:
        The evaluator after ``evaluate``, ``accumulate`` and ``summarize``. The ids of its detections are their
        positions in ``detections`` plus 1.
    """
    from pycocotools.cocoeval import COCOeval

    results = [{**d, "id": i, "area": _area(d, d["bbox"]), "iscrowd": 0} for i, d in enumerate(detections, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        objects = _indexed({**gt, "annotations": [dict(a) for a in gt["annotations"]]})
        found = _indexed({**gt, "annotations": results})
        evaluator = oriented_evaluation(objects, found) if is_oriented(gt) else COCOeval(objects, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def plain_id(identifier: Any) -> ImageId:
    """Return an id that JSON can hold, which numpy's integers are not.

    Args:
        identifier: An integer or a string, Python's or numpy's.

    Returns:
        The same as Python's own.
    """
    return str(identifier) if isinstance(identifier, str) else int(identifier)


def _unique_ids(entries: Sequence[Any], what: str) -> list[Any]:
    """Return the ids of images or categories, which have to be distinct and either all integers or all strings."""
    if not entries:
        raise DataError(f"{what}: expected at least one entry, got none.")
    ids: list[Any] = [entry.get("id") if isinstance(entry, Mapping) else None for entry in entries]
    if not (all(_is_integer(i) for i in ids) or all(isinstance(i, str) for i in ids)):
        bad = [i for i in ids if not _is_integer(i)]
        raise DataError(f"{what}: expected ids that are all integers or all strings, got {examples(bad)}.")
    if repeated := [i for i, count in Counter(ids).items() if count > 1]:
        raise DataError(f"{what}: expected different ids, got {examples(repeated)} repeatedly.")
    if large := [i for i in ids if not isinstance(i, str) and abs(i) > LARGEST_ID]:
        raise DataError(f"{what}: expected ids of at most 2**53, got {examples(map(int, large))}.")
    return ids


def _is_integer(value: object) -> bool:
    """Return whether a value is an integer, which True is not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_references(entries: Sequence[Any], key: str, known: Sequence[Any], what: str) -> None:
    """Raise unless every entry is a mapping whose ``key`` is one of the known ids."""
    if not all(issubclass(kind, Mapping) for kind in set(map(type, entries))):
        bad = [entry for entry in entries if not isinstance(entry, Mapping)]
        raise DataError(f"{what}: expected mappings as entries, got {examples(bad)}.")
    values = [entry.get(key) for entry in entries]
    valid = set(known)
    try:
        strange = set(values) - valid
        unknown = [value for value in dict.fromkeys(values) if value in strange] if strange else []
    except TypeError:  # a list, say
        unknown = [value for value in values if not isinstance(value, Hashable)]
    if unknown:
        raise DataError(
            f"{what}: expected every {key} to be one of the ground truth's ids (such as {known[0]!r}), "
            f"got {examples(unknown)}."
        )


def _boxes(entries: Sequence[Any], what: str) -> list[list[float]]:
    """Return the boxes as floats, raising unless each is four finite numbers with a width and height of at least 0."""
    rows = [entry.get("bbox") for entry in entries]
    if not rows:
        return []
    boxes = numbers(rows)
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 4 or not _valid_boxes(boxes):
        bad = [e["image_id"] for e, row in zip(entries, rows, strict=True) if not _is_box(row)]
        raise DataError(
            f"{what}: expected every bbox to be four finite numbers [left, top, width, height] with no negative "
            f"size, got others in image {examples(bad)}."
        )
    result: list[list[float]] = boxes.tolist()
    return result


def _with_upright_boxes(entries: Sequence[Any], what: str) -> list[Any]:
    """Put the upright box around each oriented one, raising unless that is five finite numbers that make a box."""
    places = [i for i, entry in enumerate(entries) if ORIENTED in entry]
    result = list(entries)
    if not places:
        return result
    boxes = numbers([entries[i][ORIENTED] for i in places])
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 5 or not _valid_boxes(boxes[:, :4]):
        rows = [(entries[i]["image_id"], numbers([entries[i][ORIENTED]])) for i in places]
        bad = [i for i, row in rows if row is None or row.shape != (1, 5) or not _valid_boxes(row[:, :4])]
        raise DataError(
            f"{what}: expected every {ORIENTED} to be five finite numbers [x, y, width, height, angle] with no "
            f"negative size, got others in image {examples(bad)}."
        )
    if not np.isfinite(boxes).all():
        raise DataError(f"{what}: expected every {ORIENTED} to have a finite angle, got another.")
    for i, box in zip(places, enclosing(boxes).tolist(), strict=True):
        result[i] = {**entries[i], "bbox": box}
    return result


def _oriented(entry: Mapping[str, Any]) -> Json:
    """Return the oriented box of an entry that has one, under its key."""
    return {ORIENTED: [float(v) for v in entry[ORIENTED]]} if ORIENTED in entry else {}


def _area(entry: Mapping[str, Any], box: Sequence[float]) -> float:
    """Return the area of an entry's box: of the oriented one, where there is one."""
    oriented = entry.get(ORIENTED)
    return float(box[2] * box[3] if oriented is None else oriented[2] * oriented[3])


def _check_kind(detections: Sequence[Any], gt: Json, what: str) -> None:
    """Raise unless the detections have oriented boxes where the ground truth has them, and there alone."""
    oriented = is_oriented(gt)
    if gt["annotations"] and (odd := [d["image_id"] for d in detections if (ORIENTED in d) != oriented]):
        has, others = ("oriented", "upright") if oriented else ("upright", "oriented")
        raise DataError(
            f"{what}: expected {has} boxes ({'with' if oriented else 'without'} '{ORIENTED}'), as the ground truth "
            f"has, got {others} ones in image {examples(odd)}."
        )


def _check_near(entries: Sequence[Any], boxes: Sequence[Sequence[float]], what: str) -> None:
    """Raise for boxes that lie out of any image."""
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    edges = np.abs(np.concatenate([array, array[:, :2] + array[:, 2:]], 1)).max(1, initial=0)
    if far := [e["image_id"] for e, edge in zip(entries, edges, strict=True) if edge > LARGEST_COORDINATE]:
        raise DataError(
            f"{what}: expected every bbox within {LARGEST_COORDINATE:g} pixels, got others in image {examples(far)}."
        )


def _check_crowds(annotations: Sequence[Any], what: str) -> None:
    """Raise for crowds that are neither 0 nor 1."""
    crowds = [a.get("iscrowd", 0) for a in annotations]
    if odd := [crowd for crowd in crowds if not (isinstance(crowd, (Real, np.bool_)) and crowd in (0, 1))]:
        raise DataError(f"{what}: expected every iscrowd to be 0 or 1, or true or false, got {examples(odd)}.")


def _warn_of_duplicates(annotations: Sequence[Any], boxes: Sequence[Sequence[float]], what: str) -> None:
    """Warn of objects that are annotated twice: they count twice, and one of the two is always missed."""
    keys = [
        (a["image_id"], a["category_id"], bool(a.get("iscrowd", 0)), *box, *a.get(ORIENTED, ()))
        for a, box in zip(annotations, boxes, strict=True)
    ]
    if (repeated := len(keys) - len(set(keys))) > 0:
        images = dict.fromkeys(key[0] for key, count in Counter(keys).items() if count > 1)
        warnings.warn(
            f"{what}: expected each object once, got {repeated} repeated with the same box and class in image "
            f"{examples(images)}; each counts.",
            stacklevel=4,
        )


def _odd_areas(annotations: Sequence[Any]) -> list[Any]:
    """Return the images of annotations whose area is no number within bounds."""
    odd = []
    for annotation in annotations:
        area = numbers([annotation.get("area", 0)])
        if area is None or area.ndim != 1 or not 0 <= area[0] <= LARGEST_COORDINATE**2:
            odd.append(annotation["image_id"])
    return odd


def _is_box(row: object) -> bool:
    """Return whether one row is a valid box."""
    box = numbers([row])
    return box is not None and box.shape == (1, 4) and _valid_boxes(box)


def _valid_boxes(boxes: Floats) -> bool:
    """Return whether all of (N, 4) boxes are finite and have a width and height of at least 0."""
    return bool(np.isfinite(boxes).all() and (boxes[:, 2:] >= 0).all())


def _finite(values: list[Any]) -> bool:
    """Return whether all values are finite numbers."""
    found = numbers(values)
    return found is not None and bool(np.isfinite(found).all())


def _indexed(content: Json) -> Any:
    """Wrap loaded JSON as pycocotools' COCO object."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco
