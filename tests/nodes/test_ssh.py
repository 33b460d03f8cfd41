"""`deepspeed --hostfile` from one node, which reaches the others by pdsh and ssh."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes import launches, namespaces
from tests.nodes.launches import assert_same_losses, log, write_job
from tests.nodes.namespaces import Nodes
from tests.training.jobs import ROOT

PROGRAMS = {"pdsh": "pdsh", "ssh-keygen": "openssh-client", "/usr/sbin/sshd": "openssh-server"}
MISSING = [f"{program} ({package})" for program, package in PROGRAMS.items() if shutil.which(program) is None]
WHY_NOT = namespaces.why_not() or (f"not installed: {', '.join(MISSING)}" if MISSING else None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

SSHD = """
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
"""
SSH = """
IdentityFile {folder}/key
UserKnownHostsFile /dev/null
StrictHostKeyChecking no
LogLevel ERROR
"""


def start_sshd(nodes: Nodes, folder: Path) -> None:
    """An ssh server on every node, for a key of this test alone."""
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    (folder / "ssh_config").write_text(SSH.format(folder=folder))
    for number in range(len(nodes.addresses)):
        server = ["/usr/sbin/sshd", "-f", str(folder / "sshd_config"), "-E", str(folder / f"sshd{number}.log")]
        subprocess.run(nodes.command(number, server), check=True)


def test_job_started_from_one_node(tmp_path, alone, monkeypatch):
    job = write_job(tmp_path, 2, output_dir=str(tmp_path / "run"))
    settings = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    (tmp_path / "deepspeed_env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    monkeypatch.setenv("DS_ENV_FILE", str(tmp_path / "deepspeed_env"))
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", f"-F {tmp_path}/ssh_config")
    with Nodes(2) as nodes:
        start_sshd(nodes, tmp_path)
        hostfile = tmp_path / "hostfile"
        hostfile.write_text("".join(f"{address} slots=1\n" for address in nodes.addresses))
        place = [f"--master_addr={nodes.addresses[0]}", "--master_port=29500", "--no_ssh_check"]
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile), *place]
        started = [nodes.start(0, [*launcher, "launch/train.py", "--config", str(job)], log(tmp_path, 0), ROOT)]
        codes = launches.wait_for_ends(started, tmp_path)
    assert codes == [0], log(tmp_path, 0).read_text()[-4000:]
    assert_same_losses(tmp_path / "run", alone)
    text = log(tmp_path, 0).read_text()
    for number, address in enumerate(nodes.addresses):
        assert f"{address}: [" in text, f"node {number} printed nothing"
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
