"""Files that come with the package: DeepSpeed configurations, recipes and their schemas, each known by its name."""

from __future__ import annotations

from pathlib import Path

from trex_ds.wording import did_you_mean

_PACKAGE = Path(__file__).parent
DEEPSPEED_CONFIGS = _PACKAGE / "ds_configs"
RECIPES = _PACKAGE / "recipes"
SCHEMAS = _PACKAGE / "schemas"


def deepspeed_file(named: str) -> Path:
    """The file of `training.deepspeed`: a configuration of this package by its name, else a path."""
    packaged = DEEPSPEED_CONFIGS / f"{named}.json"
    return packaged if named in names_in(DEEPSPEED_CONFIGS) else Path(named)


def deepspeed_name(file: Path) -> str:
    """What `training.deepspeed` calls `file`; the opposite of `deepspeed_file`."""
    return file.stem if file.parent == DEEPSPEED_CONFIGS else str(file)


def recipe_file(named: str) -> Path:
    """The file of `--config`: a path, else, where no such file is, a recipe of this package by its name."""
    packaged = RECIPES / f"{named}.yaml"
    return packaged if named in names_in(RECIPES) and not Path(named).exists() else Path(named)


def install(package: str, extra: str) -> str:
    """The way to a library of one of the package's extras, for users of a wheel and of a clone."""
    return f"pip install {package} (or the extra {extra}: pip install 'trex_ds[{extra}]', in a clone -e '.[{extra}]')"


def names_in(folder: Path) -> list[str]:
    """The names of the files in one of the package's folders, sorted."""
    return sorted(file.stem for file in folder.iterdir() if file.suffix in (".json", ".yaml"))


def not_found(named: str, folder: Path) -> str:
    """Message for a path without a file that is not a name in `folder` either."""
    hint = did_you_mean(Path(named).stem, names_in(folder), "by name there are")
    return f"no file {named!r} (relative to {Path.cwd()}); {hint}"
