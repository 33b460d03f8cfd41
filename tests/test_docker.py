"""What the linters of `make check` cannot see: docker/ fits the rest of the repository."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from trex_ds.config import read_recipe
from trex_ds.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*Dockerfile"))
COMPOSE_FILES = sorted((ROOT / "docker").glob("compose*.yaml"))
# As in `postgres:17.6-bookworm` and `nvidia/cuda:13.0.3-devel-ubuntu24.04`.
PINNED = re.compile(r"[\w./-]+:\d+\.\d+[\w.-]*")


def instructions(file: Path) -> list[list[str]]:
    """The instructions of a Dockerfile as words, without comments and with continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def services() -> list[tuple[Path, str, dict[str, Any]]]:
    return [
        (file, name, service)
        for file in COMPOSE_FILES
        for name, service in yaml.safe_load(file.read_text())["services"].items()
    ]


def training_command(service: dict[str, Any]) -> list[str]:
    """The service's command from `deepspeed` on; empty if it starts no training."""
    command = service.get("command", [])
    words = shlex.split(command if isinstance(command, str) else " ".join(command))
    return words[words.index("deepspeed") :] if "deepspeed" in words else []


def installed(file: Path) -> list[str]:
    """The words of the Dockerfile's `pip install` commands that are no options."""
    (run,) = [words for words in instructions(file) if words[0] == "RUN" and "pip" in words]
    pips = " ".join(run[1:]).split(" && ")
    words = [word for pip in pips if pip.startswith("pip install ") for word in pip.split()[2:]]
    return [word for word in words if not word.startswith("--") and word != "constraints.txt"]


def build_context_rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


TRAINING = [(file, name, service) for file, name, service in services() if training_command(service)]
NAMES = [f"{file.stem}-{name}" for file, name, _ in TRAINING]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_an_image_copies_exists_and_is_in_the_build_context(file):
    assert build_context_rules()[0] == "*"
    sources = [source for word, *rest in instructions(file) if word == "COPY" for source in rest[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {source.split("/")[0] for source in sources} <= {rule.removeprefix("!") for rule in build_context_rules()}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_an_image_installs_is_pinned(file):
    (base,) = [words[1] for words in instructions(file) if words[0] == "FROM"]
    assert PINNED.fullmatch(base)
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    packages = [word for word in installed(file) if not word.startswith(".")]
    assert packages
    assert [name for name in packages if name.lower() not in pins] == []


def test_image_has_the_extras_and_wheels_of_the_makefile():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras, *wheels = installed(ROOT / "docker" / "Dockerfile")
    names = extras.removeprefix(".[").removesuffix("]").split(",")
    assert [name for name in names if name not in setup["options.extras_require"]] == []
    makefile = (ROOT / "Makefile").read_text()
    assert f"--no-deps {' '.join(wheels)}\n" in makefile
    (local,) = re.findall(r"--editable '\.\[(.*)\]'", makefile)
    assert set(local.split(",")) - {"dev"} <= set(names)


@pytest.mark.parametrize(("file", "name", "service"), TRAINING, ids=NAMES)
def test_training_of_a_compose_file_is_a_valid_job(file, name, service, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = training_command(service)
    script = command.index("launch/train.py")
    recipe = read_recipe(Recipe, command[script + 1 :], "")
    assert recipe.output_dir.startswith("runs/")
    assert [volume for volume in service["volumes"] if volume == "../runs:/app/runs"]


def test_nodes_run_one_command_and_differ_in_their_number():
    nodes = {name: service for file, name, service in services() if file.name == "compose.two_nodes.yaml"}
    hosts = (ROOT / "docker" / "two_nodes.hosts").read_text().split("\n")
    assert [line.split()[0] for line in hosts if line] == list(nodes)
    assert [service["environment"].pop("NODE_RANK") for service in nodes.values()] == list(range(len(nodes)))
    assert [service.pop("hostname") for service in nodes.values()] == list(nodes)
    first, *others = nodes.values()
    assert others == [first] * len(others)
    command = training_command(first)
    assert command[command.index("--master_addr") + 1] == next(iter(nodes))
    (mount,) = [volume for volume in first["volumes"] if "hosts" in volume]
    source, target, _ = mount.split(":")
    assert (ROOT / "docker" / source).is_file()
    assert target == f"/app/{command[command.index('--hostfile') + 1]}"


def test_images_that_are_pulled_are_pinned_and_the_others_are_built():
    built = {service["image"] for _, _, service in services() if "build" in service}
    pulled = [service["image"] for _, _, service in services() if service["image"] not in built]
    assert pulled
    assert [image for image in pulled if not PINNED.fullmatch(image)] == []
    for file, _, service in services():
        if build := service.get("build"):
            assert (file.parent / build["context"] / build["dockerfile"]).is_file()


def test_jobs_reach_the_tracking_server_by_a_name_it_answers_to():
    team = {name: service for file, name, service in services() if file.name == "compose.yaml"}
    uri = team["train"]["environment"]["MLFLOW_TRACKING_URI"]
    server = team["mlflow"]["environment"]
    assert uri.removeprefix("http://") in server["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert uri.removeprefix("http://").split(":")[0] in team
    database = team["postgres"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    address = re.sub(r"\$\{.*?\}", "PASSWORD", server["MLFLOW_BACKEND_STORE_URI"])
    assert address == f"postgresql+psycopg2://{user}:PASSWORD@postgres:5432/{name}"


def test_every_setting_of_the_compose_file_is_explained_and_no_password_has_a_default():
    text = (ROOT / "docker" / "compose.yaml").read_text()
    example = (ROOT / "docker" / ".env.example").read_text()
    settings = dict(re.findall(r"\$\{(\w+)(\S)", text))
    assert set(settings) == set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert re.findall(r"\$\{POSTGRES_PASSWORD(..)", text) == [":?", ":?"]
    assert "POSTGRES_PASSWORD=\n" in example
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()
