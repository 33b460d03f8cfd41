"""Jobs on several nodes: the same losses as on one, and an end in bounded time when a node is lost."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.nodes import launches, namespaces
from tests.nodes.launches import FOREVER, assert_same_losses, by_deepspeed, by_torchrun, log, write_job
from tests.nodes.namespaces import Nodes
from tests.training.jobs import ROOT

NODE_LIST = "nodes[0-1]"
WHY_NOT = namespaces.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("nodes")


def assert_nothing_left(nodes: Nodes) -> None:
    end = time.monotonic() + 60
    while any(nodes.processes(number) for number in range(len(nodes.addresses))):
        assert time.monotonic() < end, "processes remain on a node after its launcher has ended"
        time.sleep(0.2)


def test_cut_link_ends_both_nodes_and_each_names_the_other(folder, alone, tmp_path):
    output = folder / "cut"
    job = write_job(folder, 2, output_dir=str(output), training__timeout_minutes=0.5)
    arguments = ["--config", str(job), "--training.max_steps", str(FOREVER)]
    with Nodes(2) as nodes:
        commands = [by_deepspeed(nodes, number, 1, folder, *arguments) for number in range(2)]
        started = launches.start_all(nodes, commands, tmp_path)
        launches.wait_for_steps(output, started, tmp_path)
        nodes.cut(1)
        codes = launches.wait_for_ends(started, tmp_path)
        assert_nothing_left(nodes)
    assert_same_losses(output, alone)
    assert 0 not in codes
    assert "rank 1 on node1" in log(tmp_path, 0).read_text()
    assert "rank 0 on node0, which keeps the ranks together, has not answered" in log(tmp_path, 1).read_text()
    for number in range(2):
        assert "--training.resume true" in log(tmp_path, number).read_text()


def test_killed_node_ends_all_others(folder, alone, tmp_path):
    output = folder / "killed"
    job = write_job(folder, 3, output_dir=str(output), training__timeout_minutes=0.5)
    arguments = ["--config", str(job), "--training.max_steps", str(FOREVER)]
    with Nodes(3) as nodes:
        commands = [by_deepspeed(nodes, number, 1, folder, *arguments) for number in range(3)]
        started = launches.start_all(nodes, commands, tmp_path)
        launches.wait_for_steps(output, started, tmp_path)
        nodes.kill(1)
        codes = launches.wait_for_ends(started, tmp_path)
        assert_nothing_left(nodes)
    assert_same_losses(output, alone)
    assert 0 not in codes
    for number in (0, 2):
        text = log(tmp_path, number).read_text()
        assert f"rank {number} on node{number}" in text
        assert "rank 1 on node1" in text


def test_three_nodes_of_two_ranks_by_torchrun(folder, alone, tmp_path):
    output = folder / "torchrun"
    job = write_job(folder, 6, output_dir=str(output))
    with Nodes(3) as nodes:
        commands = [by_torchrun(nodes, number, 2, folder, "--config", str(job)) for number in range(3)]
        codes = launches.wait_for_ends(launches.start_all(nodes, commands, tmp_path), tmp_path)
        assert_nothing_left(nodes)
    assert codes == [0, 0, 0], log(tmp_path, 0).read_text()[-4000:]
    assert_same_losses(output, alone)
    assert (output / "adapter" / "adapter_model.safetensors").is_file()


SRUN = """#!/bin/sh
# Stands for SLURM's: the command once on each node, with that node's variables.
while [ "${1#--}" != "$1" ]; do shift; done
test "$SRUN_CPUS_PER_TASK" = 2 || exit 9
"""


def write_slurm(folder: Path, tmp_path: Path, nodes: Nodes) -> Path:
    """A folder with `srun` and `scontrol`; what a node prints is in its log."""
    programs = folder / "slurm"
    programs.mkdir()
    lines, waits = [], []
    for number in range(len(nodes.addresses)):
        place = shlex.join(nodes.command(number, []))
        own = f"--data.cache {folder}/cache{number} --output_dir {folder}/slurm{number} > {log(tmp_path, number)} 2>&1"
        lines.append(f'SLURM_NODEID={number} {place} "$@" {own} & node{number}=$!\n')
        waits.append(f"wait $node{number} || exit $?\n")
    (programs / "srun").write_text(SRUN + "".join(lines + waits))
    expected = f'test "$*" = "show hostnames {NODE_LIST}" && printf "%s\\n" {" ".join(nodes.addresses)}'
    (programs / "scontrol").write_text(f"#!/bin/sh\n{expected}\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    return programs


def test_slurm_script_on_two_nodes_of_two_ranks_that_share_no_folder(folder, alone, tmp_path):
    job = write_job(folder, 4, output_dir=str(folder / "unused"))
    with Nodes(2) as nodes:
        programs = write_slurm(folder, tmp_path, nodes)
        slurm = {
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_NODELIST": NODE_LIST,
            "SLURM_NNODES": "2",
            "SLURM_JOB_ID": "4711",
            "SLURM_CPUS_PER_TASK": "2",
            "RANKS_PER_NODE": "2",
            "PYTHON": sys.executable,
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        command = ["bash", str(ROOT / "launch" / "slurm" / "train.sbatch"), "--config", str(job)]
        done = subprocess.run(command, env=os.environ | slurm, cwd=folder, capture_output=True, text=True, timeout=500)
        assert_nothing_left(nodes)
    assert done.returncode == 0, done.stderr + log(tmp_path, 0).read_text()[-4000:]
    assert_same_losses(folder / "slurm0", alone)
    assert (folder / "slurm0" / "adapter" / "adapter_model.safetensors").is_file()
    assert "is not seen by rank 2 on node1, rank 3 on node1" in log(tmp_path, 0).read_text()
    # Each node has prepared its own data, and only the first has results.
    assert (folder / "cache1" / "intuition").is_dir()
    assert not (folder / "slurm1" / "adapter").exists()
