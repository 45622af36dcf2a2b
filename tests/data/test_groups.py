# SPDX-License-Identifier: AGPL-3.0-or-later
"""Images are grouped by a CSV file or an expression, and never wrongly in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from det_ls.data.groups import Groups, groups_for, shared_groups

NAMES = {7: "images/val/p1_001.png", 3: "images/val/p1_002.png", 5: "images/val/p2_001.png"}


def members(groups: Groups) -> dict[int, str]:
    return {i: groups.names[c] for i, c in zip(groups.image_ids, groups.codes, strict=True)}


@pytest.mark.parametrize("pattern", ["^p\\d+", "^(p\\d+)_", "/(p\\d)_"])
def test_an_expression_groups_by_its_match_or_first_parenthesis(pattern: str) -> None:
    groups = groups_for(pattern, NAMES)
    assert members(groups) == {7: "p1", 3: "p1", 5: "p2"}
    assert groups.n == 2


def test_the_folder_is_searched_only_by_an_expression_with_a_slash() -> None:
    videos = {1: "a/0001.jpg", 2: "a/0002.jpg", 3: "b/0001.jpg"}
    assert groups_for("^([^/]+)/", videos).codes.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="no match in 'a/0001.jpg'"):
        groups_for("^a", videos)


def test_an_image_without_match_is_refused_unless_the_expression_takes_it() -> None:
    names = {1: "00054_1.jpg", 2: "00054_2.jpg", 3: "val_1 (3).jpg", 4: "val_1 (4).jpg"}
    with pytest.raises(ValueError, match=r"no match in 'val_1 \(3\).jpg', 'val_1 \(4\).jpg'"):
        groups_for(r"^\d+", names)
    assert groups_for(r"^\d+|.+", names).codes.tolist() == [0, 0, 1, 2]


def test_an_empty_match_is_no_group() -> None:
    with pytest.raises(ValueError, match="no match in 'x.jpg'"):
        groups_for(r"\d*", {1: "x.jpg"})


@pytest.mark.parametrize(
    "text",
    [
        "image,group\np1_001.png,p1\np1_002.png,p1\np2_001.png,p2\n",
        "p1_001,p1\np1_002,p1\np2_001,p2\n",
        "Age,Group,Image\n3,p1,images/val/p1_001.png\n4,p1,p1_002\n,p2,images\\val\\p2_001\n\n",
        "file,patient\np1_001,p1\np1_002,p1\np2_001,p2\ntrain_1,p3\n",
    ],
)
def test_a_csv_names_images_by_path_name_or_stem_with_or_without_header(text: str, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text(text, encoding="utf-8-sig")
    for spec in (file, str(file)):
        assert members(groups_for(spec, NAMES)) == {7: "p1", 3: "p1", 5: "p2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p1_001,p1\np2_001,p2\n", "every image in '.*', got none for 'images/val/p1_002.png'"),
        ("p1_001,p1\np1_002\n", r"each row of '.*', got \['p1_002'\]"),
        ("p1_001,p1\np1_001,p2\n", "got 'p1' and 'p2' for 'p1_001'"),
        ("", "got none for 'images/val/p1_001.png', 'images/val/p1_002.png', 'images/val/p2_001.png'"),
    ],
)
def test_an_incomplete_csv_is_refused_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match="^groups: expected .*" + message) as error:
        groups_for(file, NAMES)
    assert "\n" not in str(error.value)


def test_an_entry_that_fits_several_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("0001.jpg,a\n")
    with pytest.raises(ValueError, match="got '0001.jpg', which fits 'v1/0001.jpg', 'v2/0001.jpg'"):
        groups_for(file, {1: "v1/0001.jpg", 2: "v2/0001.jpg"})


def test_unusable_specifications_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"got 'patients.csv', which does not exist\.$"):
        groups_for("patients.csv", NAMES)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        groups_for(tmp_path / "bytes.csv", NAMES)
    with pytest.raises(ValueError, match=re.escape("got '(p' (missing )")):
        groups_for("(p", NAMES)
    with pytest.raises(TypeError, match="got 3"):
        groups_for(3, NAMES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got none for image 2"):
        groups_for("^p", {1: "p1", 2: None})


def test_codes_follow_any_order_of_the_images() -> None:
    groups = groups_for("^p\\d+", NAMES)
    assert groups.codes_for((3, 5, 7)).tolist() == [0, 1, 0]


def test_splits_that_share_a_group_are_found() -> None:
    train, val = groups_for("^p\\d+", {1: "p9_1.png", 2: "p2_7.png"}), groups_for("^p\\d+", NAMES)
    assert shared_groups(train, val) == ("p2",)
    assert shared_groups(val, groups_for({"x": "p9"}, {1: "x.png"})) == ()


def test_brain_tumor_has_its_patients(shared_data: Path) -> None:
    names = sorted(p.name for p in (shared_data / "brain-tumor" / "images" / "train").glob("*.jpg"))
    groups = groups_for(r"^\d+", dict(enumerate(names, start=1)))
    assert 1 < groups.n < len(names) == len(groups.codes)
