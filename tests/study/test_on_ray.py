# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cells run on a Ray cluster of two nodes, and their files come back with and without a folder that both see."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from det_ls.study import on_ray
from det_ls.study.cell import Task, read_cell
from det_ls.study.executors import Job
from det_ls.study.records import Arm, Cell, Condition, State

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_cells_come_back(cluster, tmp_path):
    executor = on_ray.RayExecutor(tmp_path, tmp_path / "data")
    assert executor.slots == 2
    jobs = []
    for seed in (0, 1):  # a data set that is not there: the quickest way to a cell.json
        task = Task(Cell(Condition(), Arm(), seed), {"data": "nothing.yaml", "model": "yolo11n.yaml", "epochs": 1})
        jobs.append(Job(tmp_path / task.name, task))
    executor.start(jobs[0])
    ended = finished(executor, 1)
    (tmp_path / on_ray.TOKEN).unlink()  # now the folder looks like one that the nodes do not see
    executor.start(jobs[1])
    ended += finished(executor, 1)
    executor.stop()
    assert ended == [(jobs[0], None), (jobs[1], None)]
    for job in jobs:
        result = read_cell(job.folder, job.task)
        assert result.state == State.FAILED
        assert "nothing.yaml" in result.error
        assert (job.folder / "log.txt").read_bytes()


def finished(executor, count):
    """Wait for cells to end."""
    ended = []
    while len(ended) < count:
        ended += executor.finished()
        time.sleep(0.1)
    return ended
