# SPDX-License-Identifier: AGPL-3.0-or-later
"""The cells of a study come out the same on a Ray cluster of two nodes as in local processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from det_ls.studies import study

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'det-ls[ray]')")


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of this machine, each of whose nodes holds one cell."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def test_two_nodes_give_the_numbers_of_local_processes(two_nodes, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.parent)  # a node's processes start elsewhere: relative paths have to hold there too
    words = {"data": tiny.name, "model": "yolo11n.yaml", "label_smoothing": "0,0.1", "seeds": 1, "epochs": 1}
    words |= {"imgsz": 32, "batch": 4, "nbs": 4, "workers": 0, "train_images": 4, "cores": 1, "label_noise": 0.4}
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    there = study(**words, executor="ray", save_dir=tmp_path / "ray")
    here = study(**words, jobs=2, device="cpu", save_dir=tmp_path / "local")
    assert [r.error for r in there.results] == [None, None]
    for a, b in zip(there.results, here.results, strict=True):
        assert a.measured == b.measured
        assert without_time(a.curves) == without_time(b.curves)
        assert a.curves["train/cls_loss"][0] > 0
    assert not list(Path(tmp_path / "ray").glob(".det-ls*"))  # nothing of the cluster stays in the folder
    assert json.loads((tmp_path / "ray" / "study.json").read_text())["execution"]["executor"] == "ray"


def without_time(curves):
    """Curves but for the seconds that an epoch took."""
    return {name: values for name, values in curves.items() if name != "time"}
