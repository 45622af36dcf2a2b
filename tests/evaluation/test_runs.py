# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several runs an arm are found by patterns and paired by their seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from det_ls.evaluation.runs import expand, pair_by_seed


def make_runs(root: Path, name: str, seeds: list[int | None]) -> list[Path]:
    files = []
    for i, seed in enumerate(seeds, start=1):
        folder = root / f"{name}{i}"
        (folder / "weights").mkdir(parents=True)
        if seed is not None:
            (folder / "args.yaml").write_text(yaml.safe_dump({"seed": seed}))
        files.append(folder / "weights" / "best.pt")
        files[-1].touch()
    return files


def test_patterns_and_lists_are_expanded_in_natural_order(tmp_path: Path) -> None:
    files = make_runs(tmp_path, "stock", [None] * 11)
    assert expand(str(tmp_path / "stock*/weights/best.pt")) == files
    assert expand(tmp_path / "stock1*/weights/best.pt") == [files[0], files[9], files[10]]
    assert expand([files[2], str(tmp_path / "stock[12]/weights/*.pt")]) == [files[2], files[0], files[1]]
    assert expand(f"[{files[1]}, '{files[0]}']") == [files[1], files[0]]
    assert expand("yolo11n.pt") == [Path("yolo11n.pt")]  # an official checkpoint need not be there


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "[a,b]" / "best.pt"
    file.parent.mkdir()
    file.touch()
    assert expand(str(file)) == [file]


def test_what_cannot_be_expanded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^b: expected files that fit '.*x\*.pt', got none\.$"):
        expand(str(tmp_path / "x*.pt"), "b")
    with pytest.raises(ValueError, match="a: expected at least one file, got an empty list"):
        expand([])
    with pytest.raises(ValueError, match="a: expected each file once, got 'x.pt' repeatedly"):
        expand(["x.pt", "x.pt"])
    with pytest.raises(TypeError, match="a: expected a path, a pattern or a list of these, got 3"):
        expand(["x.pt", 3])


def test_runs_are_paired_by_seed_where_both_arms_have_the_same(tmp_path: Path) -> None:
    a, b = make_runs(tmp_path, "a", [2, 0, 1]), make_runs(tmp_path, "b", [0, 1, 2])
    pairing = pair_by_seed(a, b)
    assert (pairing.by, pairing.seeds) == ("seed", (0, 1, 2))
    assert pairing.pairs == ((a[1], b[0]), (a[2], b[1]), (a[0], b[2]))


@pytest.mark.parametrize("seeds", [[0, 1, 3], [0, 0, 1], [0, None, 2], [None, None, None]])
def test_runs_are_paired_by_order_where_seeds_do_not_pair_them(seeds: list[int | None], tmp_path: Path) -> None:
    a, b = make_runs(tmp_path, "a", [2, 1, 0]), make_runs(tmp_path, "b", seeds)
    pairing = pair_by_seed(a, b)
    assert (pairing.by, pairing.seeds, pairing.pairs) == ("order", (), tuple(zip(a, b, strict=True)))


def test_arms_that_cannot_be_paired_are_refused(tmp_path: Path) -> None:
    a, b = make_runs(tmp_path, "a", [0, 1]), make_runs(tmp_path, "b", [0])
    with pytest.raises(ValueError, match=r"^b: expected as many runs as a has \(2\), got 1\.$"):
        pair_by_seed(a, b)
    with pytest.raises(ValueError, match="b: expected other files than a, got '.*best.pt' in both"):
        pair_by_seed(a, a)
