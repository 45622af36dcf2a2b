# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a dataset is looked for, compared with what stock Ultralytics does with the same argument."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ultralytics.data import utils
from ultralytics.utils import ROOT as ULTRALYTICS

from det_ls.data.locate import check_dataset, class_names, dataset_root, local_data_file

REPOSITORY = Path(__file__).parents[2]
PACKAGED = ULTRALYTICS / "cfg" / "datasets"


@pytest.fixture
def stock_root(tmp_path, monkeypatch):
    """Give Ultralytics an empty datasets folder, and stand in an empty working directory."""
    root = tmp_path / "stock"
    for folder in (root, tmp_path / "cwd"):
        folder.mkdir()
    monkeypatch.setattr(utils, "DATASETS_DIR", root)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("DET_LS_DATA", raising=False)
    return root


def make_dataset(root, name="toy"):
    for split in ("train", "val"):
        (root / name / "images" / split).mkdir(parents=True)
    return root / name


def make_yaml(folder, name="toy", **content):
    file = folder / f"{name}.yaml"
    content = {"path": name, "train": "images/train", "val": "images/val", "names": ["a", "b"], **content}
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return file


def test_importing_the_module_loads_neither_torch_nor_ultralytics():
    code = "import sys, det_ls.data.locate; sys.exit(bool({'torch', 'ultralytics'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# DET_LS_DATA


def test_a_dataset_in_det_ls_data_is_used_by_stock_code_within_the_context(tmp_path, monkeypatch, stock_root):
    elsewhere = make_dataset(tmp_path / "elsewhere")
    make_dataset(stock_root)
    file = make_yaml(tmp_path)
    monkeypatch.setenv("DET_LS_DATA", str(elsewhere.parent))
    with dataset_root(file):
        assert utils.check_det_dataset(str(file))["path"] == elsewhere
    assert utils.check_det_dataset(str(file))["path"] == stock_root / "toy"
    assert check_dataset(file)["val"] == str(elsewhere / "images" / "val")


@pytest.mark.parametrize("value", [None, "", "elsewhere", "missing"])
def test_without_the_dataset_there_the_stock_folder_is_used(tmp_path, monkeypatch, stock_root, value):
    (tmp_path / "elsewhere").mkdir()
    make_dataset(stock_root)
    if value is not None:
        monkeypatch.setenv("DET_LS_DATA", str(tmp_path / value) if value else "")
    assert check_dataset(make_yaml(tmp_path))["path"] == stock_root / "toy"


def test_a_relative_or_home_folder_works(tmp_path, monkeypatch, stock_root):
    elsewhere = make_dataset(tmp_path / "elsewhere")
    file = make_yaml(tmp_path)
    for value in ("../elsewhere", "~/elsewhere"):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("DET_LS_DATA", value)
        assert check_dataset(file)["path"] == elsewhere


def test_a_download_goes_to_the_stock_folder(tmp_path, monkeypatch, stock_root):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    code = "from pathlib import Path\nfor x in 'train', 'val':\n  Path(yaml['path'], 'images', x).mkdir(parents=True)"
    assert check_dataset(make_yaml(tmp_path, download=code))["path"] == stock_root / "toy"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_absolute_path_stays(tmp_path, monkeypatch, stock_root):
    dataset = make_dataset(tmp_path / "own")
    make_dataset(tmp_path / "elsewhere")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    assert check_dataset(make_yaml(tmp_path, path=str(dataset)))["path"] == dataset


@pytest.mark.parametrize("path", [".", "..", None])
def test_a_path_that_is_relative_to_the_user_or_the_yaml_stays(tmp_path, monkeypatch, stock_root, path):
    file = make_yaml(tmp_path, path=path)
    make_dataset(tmp_path / "elsewhere")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere" / "toy"))
    with dataset_root(file):
        assert stock_root == utils.DATASETS_DIR


def test_the_working_directory_comes_first_as_in_stock_with_a_warning(tmp_path, monkeypatch, stock_root, caplog):
    from ultralytics.utils import LOGGER

    make_dataset(tmp_path / "elsewhere")
    make_dataset(tmp_path / "cwd")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(LOGGER, "propagate", True)
    assert check_dataset(make_yaml(tmp_path))["val"] == str(tmp_path / "cwd" / "toy" / "images" / "val")
    assert f"'{tmp_path / 'cwd' / 'toy'}' in the working directory is used" in caplog.text


def test_the_stock_folder_is_restored_after_an_error(tmp_path, monkeypatch, stock_root):
    make_dataset(tmp_path / "elsewhere")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(KeyboardInterrupt), dataset_root(make_yaml(tmp_path)):
        assert tmp_path / "elsewhere" == utils.DATASETS_DIR
        raise KeyboardInterrupt
    assert stock_root == utils.DATASETS_DIR


def test_nested_contexts_each_use_the_folder_of_their_own_dataset(tmp_path, monkeypatch, stock_root):
    make_dataset(tmp_path / "elsewhere")
    here, absent = make_yaml(tmp_path), make_yaml(tmp_path, "absent")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    with dataset_root(here):
        with dataset_root(here):
            assert tmp_path / "elsewhere" == utils.DATASETS_DIR
        with dataset_root(absent):
            assert stock_root == utils.DATASETS_DIR
        assert tmp_path / "elsewhere" == utils.DATASETS_DIR
    assert stock_root == utils.DATASETS_DIR


@pytest.mark.parametrize("data", [None, 3, ["a.yaml"], "https://example.com/toy.yaml", "toy.zip", "toy.ndjson", "nope"])
def test_anything_but_a_local_yaml_changes_nothing(tmp_path, monkeypatch, stock_root, data):
    make_dataset(tmp_path / "elsewhere")
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    with dataset_root(data):
        assert stock_root == utils.DATASETS_DIR


@pytest.mark.parametrize("text", ["- a list", "a: [", "", "path: 3"])
def test_a_broken_yaml_changes_nothing(tmp_path, monkeypatch, stock_root, text):
    make_dataset(tmp_path / "elsewhere")
    (tmp_path / "toy.yaml").write_text(text)
    monkeypatch.setenv("DET_LS_DATA", str(tmp_path / "elsewhere"))
    with dataset_root(tmp_path / "toy.yaml"):
        assert stock_root == utils.DATASETS_DIR


def test_brain_tumor_is_found_in_det_ls_data(shared_data, monkeypatch, stock_root):
    monkeypatch.setenv("DET_LS_DATA", str(shared_data))
    data = check_dataset(REPOSITORY / "datasets" / "brain-tumor.yaml")
    assert len(list(Path(data["train"]).iterdir())) == 893
    assert len(list(Path(data["val"]).iterdir())) == 223
    assert data["names"] == {0: "negative", 1: "positive"}


# local_data_file


@pytest.mark.parametrize("data", ["coco8.yaml", "brain-tumor.yaml", "DOTAv1.5.yaml", str(PACKAGED / "coco8.yaml")])
def test_packaged_files_are_found_as_ultralytics_finds_them(stock_root, data):
    from ultralytics.utils.checks import check_file

    assert local_data_file(data) == Path(check_file(data))


@pytest.mark.parametrize("name", ["coco8", "DOTAv1.5"])
def test_bare_names_mean_the_packaged_file(stock_root, name):
    assert local_data_file(name) == PACKAGED / f"{name}.yaml"


def test_a_folder_means_its_one_yaml(tmp_path, stock_root):
    assert local_data_file(tmp_path) is None
    file = make_yaml(tmp_path)
    assert local_data_file(tmp_path) == local_data_file(str(file)) == file
    make_yaml(tmp_path, "second")
    assert local_data_file(tmp_path) is None


def test_other_things_are_no_local_yaml(tmp_path, stock_root):
    Path("toy.zip").write_bytes(b"PK")
    Path("toy.ndjson").write_text("{}")
    for data in (None, "", " ", 3, ["coco8.yaml"], "toy.zip", "toy.ndjson", "ul://a/datasets/b", "no-such-dataset"):
        assert local_data_file(data) is None


# class_names


@pytest.mark.parametrize(
    "content",
    [
        {"names": ["a", "b"]},
        {"names": {0: "a", 1: "b"}},
        {"names": {"1": "b", "0": True}},
        {"names": None, "nc": 3},
        {"names": ["a"], "nc": 1},
    ],
)
def test_class_names_are_those_of_stock_without_any_image(tmp_path, stock_root, content):
    file = make_yaml(tmp_path, **content)
    names = class_names(file)
    make_dataset(stock_root)
    assert names == utils.check_det_dataset(str(file))["names"]
    assert list(names) == list(range(len(names)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": None}, "class names under 'names'"),
        ({"names": []}, r"to be a list or mapping of class names, got \[\]"),
        ({"names": "a"}, "to be a list or mapping of class names, got 'a'"),
        ({"names": {1: "a", 2: "b"}}, r"to have the indices 0 to 1, got \[1, 2\]"),
        ({"names": {-1: "a", 0: "b"}}, r"to have the indices 0 to 1, got \[-1, 0\]"),
        ({"names": {"x": "a"}}, r"to have the indices 0 to 0, got \['x'\]"),
        ({"names": ["a"], "nc": 2}, "as many names as nc in .* got 1 names and nc 2"),
        ({"names": None, "nc": 1.5}, "nc in .* to be a positive integer, got 1.5"),
        ({"names": None, "nc": "many"}, "nc in .* to be a positive integer, got 'many'"),
    ],
)
def test_unusable_class_names_are_explained(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        class_names(make_yaml(tmp_path, **content))
    assert "toy.yaml" in str(error.value)


def test_class_names_of_no_yaml_mapping_are_explained(tmp_path):
    file = tmp_path / "toy.yaml"
    with pytest.raises(FileNotFoundError, match=r"data: expected a data YAML, got '.*toy.yaml', which does not exist"):
        class_names(file)
    for text in ("a: [", "- a list"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"data: expected a YAML mapping, got '.*toy.yaml'"):
            class_names(file)


# check_dataset


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({}, FileNotFoundError, "was not found .* images not found, missing path '.*stock/toy/images/val'"),
        ({"train": None}, ValueError, "expected a valid data set, got .*'train:' key missing"),
        ({"names": None}, ValueError, "expected a valid data set, got .*key missing"),
        (
            {"names": {1: "a", 2: "b"}},
            ValueError,
            "expected a valid data set, got .*2-class dataset requires class indices 0-1",
        ),
    ],
)
def test_an_unusable_dataset_gives_one_sentence_that_names_it(tmp_path, stock_root, content, error, message):
    file = make_yaml(tmp_path, **content)
    with pytest.raises(error, match=message) as caught:
        check_dataset(file)
    assert str(caught.value).startswith("data: expected a ")
    assert f"got '{file}'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "❌" not in str(caught.value)


def test_a_missing_yaml_is_named(stock_root):
    with pytest.raises(
        FileNotFoundError,
        match=r"^data: expected a data set, got 'nope.yaml', which was not found \('nope.yaml' does not ",
    ):
        check_dataset("nope.yaml")


def test_the_split_that_is_asked_for_has_to_exist(tmp_path, stock_root):
    dataset = make_dataset(stock_root)
    file = make_yaml(tmp_path)
    for split in ("train", "val"):
        assert check_dataset(file, split)[split] == str(dataset / "images" / split)
    with pytest.raises(FileNotFoundError, match=r"'test:?' images"):
        check_dataset(file, "test")
    (dataset / "images" / "train").rmdir()
    with pytest.raises(FileNotFoundError, match=r"images/train'"):
        check_dataset(file, "train")


def test_a_download_that_brings_no_images_is_an_error(tmp_path, stock_root):
    with pytest.raises(FileNotFoundError, match=r"data: expected 'val' images of '.*' at '.*toy/images/val'"):
        check_dataset(make_yaml(tmp_path, download="pass"))


def test_a_failed_download_is_a_connection_error(tmp_path, stock_root):
    code = "raise ConnectionError('unreachable')"
    with pytest.raises(ConnectionError, match=r"could not be downloaded \(unreachable\)\.$"):
        check_dataset(make_yaml(tmp_path, download=code))


# datasets/*.yaml


@pytest.mark.parametrize("name", ["coco", "brain-tumor"])
def test_our_files_describe_the_same_data_as_those_of_ultralytics(name):
    ours, stock = (x / f"{name}.yaml" for x in (REPOSITORY / "datasets", PACKAGED))
    assert class_names(ours) == class_names(stock)
    ours, stock = (yaml.safe_load(x.read_text(encoding="utf-8")) for x in (ours, stock))
    assert [ours[k] for k in ("path", "train", "val")] == [stock[k] for k in ("path", "train", "val")]


def test_the_brain_tumor_download_is_that_of_ultralytics():
    ours, stock = (
        yaml.safe_load((x / "brain-tumor.yaml").read_text(encoding="utf-8"))["download"]
        for x in (REPOSITORY / "datasets", PACKAGED)
    )
    assert ours == stock


def test_the_coco_download_fetches_what_ultralytics_fetches(stock_root, monkeypatch):
    from ultralytics.utils import downloads

    def fetched(file):
        urls = set()

        def download(url, dir=None, **_):
            urls.update((x, str(dir)) for x in ([url] if isinstance(url, str) else url))

        monkeypatch.setattr(downloads, "download", download)
        with pytest.raises(FileNotFoundError):  # nothing was fetched in fact
            check_dataset(file)
        return {x for x in urls if "test2017" not in x[0]}  # older releases fetch the test images, which have no labels

    ours = fetched(REPOSITORY / "datasets" / "coco.yaml")
    assert len(ours) == 3
    assert ours == fetched(PACKAGED / "coco.yaml")


def test_coco_names_the_official_annotations_of_both_splits():
    content = yaml.safe_load((REPOSITORY / "datasets" / "coco.yaml").read_text(encoding="utf-8"))
    assert set(content["annotations"]) == {"train", "val"}
    for split, file in content["annotations"].items():
        assert re.fullmatch(rf"annotations/instances_{split}2017\.json", file)
