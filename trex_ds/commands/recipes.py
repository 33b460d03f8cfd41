"""List the recipes of this package, or copy one.

Usage:
    trex-ds recipes
    trex-ds recipes copy NAME [TO]

A recipe is used by its name as it is (`trex-ds train --config NAME`), or copied and changed. TO is a file or a folder;
without it the copy comes to the working folder. A file that exists is not replaced.

Examples:
    trex-ds recipes
    trex-ds recipes copy quickstart my.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from trex_ds.config import ConfigError, read_flags, section
from trex_ds.packaged import RECIPES, SCHEMAS, names_in
from trex_ds.wording import did_you_mean

_COPY = ("copy", "cp")


@section
class Options:
    """What to do."""

    words: list[str] = field(default_factory=list)
    """copy NAME [TO]; none: list the recipes."""

    def problems(self) -> list[str]:
        """What cannot be copied, or is not understood."""
        if not self.words:
            return []
        if self.words[0] not in _COPY or not 2 <= len(self.words) <= 3:
            return [f"{' '.join(self.words)!r} is not understood; say copy NAME [TO], or nothing to list them"]
        names = names_in(RECIPES)
        if self.words[1] not in names:
            return [f"no recipe {self.words[1]!r}; {did_you_mean(self.words[1], names)}"]
        if self.target.exists():
            return [f"{self.target} exists; remove it, or give another file"]
        if not self.target.parent.is_dir():
            return [f"no folder {self.target.parent}; make it, or give another file"]
        return []

    @property
    def target(self) -> Path:
        """The file that a recipe is copied to."""
        to = Path(self.words[2] if len(self.words) == 3 else ".")
        return to / f"{self.words[1]}.yaml" if to.is_dir() else to


def main(argv: Sequence[str]) -> None:
    """List the recipes, or copy one."""
    options = read_flags(Options, argv, __doc__, words="words")
    if options.words:
        _copy(RECIPES / f"{options.words[1]}.yaml", options.target)
        print(f"{options.words[1]} is copied to {options.target}; change it there")
        return
    names = names_in(RECIPES)
    for name in names:
        print(f"{name:{max(map(len, names))}}  {summary(RECIPES / f'{name}.yaml')}")


def summary(recipe: Path) -> str:
    """The one line that says what a recipe of this package is: its second, after the one for editors."""
    return recipe.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")


def _copy(recipe: Path, target: Path) -> None:
    first, rest = recipe.read_text(encoding="utf-8").split("\n", 1)
    # Its schema is named by where it lies from the recipe, which a copy is not beside.
    named = first.replace("../schemas", SCHEMAS.as_uri())
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(f"{named}\n{rest}")
    except OSError as error:
        raise ConfigError([f"{target} cannot be written: {error}; give another file"]) from None
