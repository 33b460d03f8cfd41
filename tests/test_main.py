"""The program: which commands there are, how each is started, and what it imports for help and refusals."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.jobs import losses, write_recipe
from trex_ds.__main__ import COMMANDS, main
from trex_ds.version import __version__

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "transformers", "peft", "deepspeed", "datasets", "mlflow", "sklearn", "lm_eval", "reasoning_gym")
REFUSED = {
    "eval": ["--tasks", "bolq", "--model", "/nowhere"],
    "answer": ["--max_new_tokens", "x"],
    "recipes": ["copy", "quickstrat"],
    "schema": ["trian"],
}
WRONG_RECIPE = [
    "--config",
    "quickstart",
    "--training.lerning_rate",
    "1",
    "--adapter.method",
    "smora",
    "--adapter.r",
    "0",
]


def started(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    own |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(words, cwd=ROOT, env=own, capture_output=True, text=True, check=False)


def test_output_that_nobody_reads_is_no_error():
    words = f"{sys.executable} -m trex_ds plan --help | true; exit ${{PIPESTATUS[0]}}"
    done = started("bash", "-c", words)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the program in this process: exit code, standard output and error."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trex-ds", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def test_help_lists_every_command_in_one_line(run):
    code, shown, _ = run("--help")
    assert code == 0
    assert [line.split()[0] for line in shown.split("Commands:\n")[1].split("\n\n")[0].splitlines()] == list(COMMANDS)
    assert max(map(len, shown.splitlines())) <= 100
    assert run("-h")[1] == run("help")[1] == shown
    code, _, without = run()
    assert (code, without) == (2, shown)


def test_version(run):
    assert run("--version") == (0, f"trex_ds {__version__}\n", "")


def test_a_mistyped_command(run):
    assert run("trian") == (2, "", "error: no command 'trian'; did you mean train?\n")
    assert run("fly")[2].startswith("error: no command 'fly'; there are train, eval, ")
    # DeepSpeed's launcher puts it in front.
    assert run("--local_rank=0", "trian")[2] == "error: no command 'trian'; did you mean train?\n"


def test_other_ranks_say_nothing(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run("trian") == (2, "", "")
    assert run("--help") == (0, "", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_has_the_first_sentence_of_each(command):
    module, sentence = COMMANDS[command]
    text = ast.get_docstring(ast.parse((ROOT / "trex_ds" / "commands" / f"{module}.py").read_text()))
    first, usage, *rest = str(text).split("\n\n")
    assert first == sentence
    assert usage.startswith(f"Usage:\n    trex-ds {command}")
    assert any(part.startswith("Examples:\n    ") for part in rest)


def test_every_command_has_a_module():
    modules = {file.stem for file in (ROOT / "trex_ds" / "commands").glob("*.py")} - {"__init__"}
    assert {module for module, _ in COMMANDS.values()} == modules


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_refusals_import_nothing_slow(command):
    refused = REFUSED.get(command, WRONG_RECIPE)
    for words, code in ((["--help"], 0), (refused, 2)):
        script = f"""
import sys
from trex_ds.__main__ import main
sys.argv = ["trex-ds", {command!r}, *{words!r}]
try:
    main()
except SystemExit as ended:
    print(ended.code, [name for name in {SLOW!r} if name in sys.modules])
"""
        done = started(sys.executable, "-c", script)
        assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "launch").glob("*.py")), ids=lambda script: script.stem)
def test_a_script_is_its_command(script):
    assert script.read_text().endswith(f'main("{script.stem}")\n')
    done = started(sys.executable, str(script), *REFUSED.get(script.stem, WRONG_RECIPE))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


LAUNCHERS = {
    "deepspeed": [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2", "--module", "trex_ds"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "trex_ds"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_are_launched_by_module(launcher, tmp_path):
    port = {"deepspeed": ["--master_port", "29571"], "torchrun": ["--master_port", "29572"]}[launcher]
    begin, *rest = LAUNCHERS[launcher]
    split = rest.index("--module") if "--module" in rest else len(rest) - 2
    command = [begin, *rest[:split], *port, *rest[split:], "train", "--config", str(write_recipe(tmp_path))]
    if launcher == "torchrun":  # the other launcher takes long to start
        refused = started(*command, "--training.max_step", "1")
        assert refused.stderr.count("did you mean --training.max_steps?") == 1
    done = started(*command, "--training.deepspeed", "zero3_fp32_cpu", "--training.max_steps", "1")
    assert done.returncode == 0, done.stderr
    assert list(losses(tmp_path / "run")) == [1]
