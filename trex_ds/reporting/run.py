"""The command: count, time, look at the routing, judge the claims, and write it all."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from trex_ds.adapter_folder import ADAPTER_FOLDER, AdapterFolder
from trex_ds.adapters.architectures import ARCHITECTURES
from trex_ds.adapters.counts import count, equal_parameter_rank, model_config
from trex_ds.adapters.peft_config import peft_config
from trex_ds.config import ConfigError, to_dict
from trex_ds.console import console
from trex_ds.distributed import on_rank_zero, rank
from trex_ds.environment import describe_environment
from trex_ds.files import atomic_path
from trex_ds.methods.lora import EQUAL_LORA
from trex_ds.modeling.zero3 import own_sharding
from trex_ds.progress import Progress
from trex_ds.reporting import approximation, claims
from trex_ds.reporting.config import ReportRecipe
from trex_ds.reporting.markdown import to_markdown
from trex_ds.reporting.page import to_html
from trex_ds.reporting.result import Report, verdict_table
from trex_ds.reporting.routing import Specialization, cluster_meaning, specialization
from trex_ds.reporting.throughput import Throughput, measure
from trex_ds.tables import Table
from trex_ds.tracking.tracker import Tracker
from trex_ds.training.job import Context, log_origin
from trex_ds.training.launched import launched
from trex_ds.training.prepared import Prepared, prepare

FOLDER = "report"
"""Folder of the report in output_dir."""
_CLAIMED_MODEL = "LLaMA-2-7B"

log = logging.getLogger(__name__)


def run(recipe: ReportRecipe) -> Report:
    """Make the report on `recipe`; every rank of the launch calls it.

    Writes report.json, report.md and report.html to `<output_dir>/report`, and sends them and their figures to
    MLflow.

    Raises:
        ConfigError: for a problem that only the data, the models or the machine show.
    """
    with launched(recipe) as device, own_sharding():
        folder = Path(recipe.output_dir) / FOLDER
        tracker = Tracker(recipe.tracking, folder, enabled=rank() == 0)
        with tracker:
            log_origin(tracker, recipe, Context(tags={"stage": "report"}))
            report = _make(recipe, device)
            on_rank_zero(lambda: _write(report, folder))
            tracker.log_metrics(report.metrics(), 0)
            for file in ("report.json", "report.md", "report.html"):
                tracker.log_artifact(folder / file)
        if rank() == 0:
            _print(report, folder, tracker.describe())
        return report


def _make(recipe: ReportRecipe, device: torch.device) -> Report:
    counts, equal_rank = on_rank_zero(lambda: _counts(recipe))
    methods = {**recipe.counted_methods(), EQUAL_LORA: recipe.lora(equal_rank)}
    prepared = prepare(recipe, device)
    meaning = on_rank_zero(lambda: cluster_meaning(prepared, recipe.seed))
    # Before anything is timed: its TrainingArguments would have models sharded that are to be loaded whole.
    routing = on_rank_zero(lambda: _specialization(recipe, prepared))
    found = on_rank_zero(approximation.measure)
    throughput = _throughput(recipe, methods, prepared)
    comparison = on_rank_zero(
        lambda: json.loads(Path(recipe.comparison).read_text(encoding="utf-8")) if recipe.comparison else None
    )
    judged, claimed = (recipe.model.name, _CLAIMED_MODEL), [recipe.lora_of_pairs, "molora_8x4"]
    verdicts = [
        *(v for model in judged if model in counts for v in claims.parameters(model, counts[model], claimed)),
        *claims.training_time(throughput),
        *claims.accuracy(comparison, recipe.report.accuracy_margin, to_dict(recipe.model), to_dict(recipe.adapter)),
        claims.approximation(found),
        claims.clusters(meaning),
        *claims.specialized(routing),
    ]
    return Report(recipe.model.name, recipe.seed, counts, throughput, found, verdicts, describe_environment())


def _counts(recipe: ReportRecipe) -> tuple[dict[str, dict[str, dict[str, int]]], int]:
    """Parameters by model, method and role; and the LoRA rank with as many of them on the recipe's model.

    Models that the recipe's adapter does not fit are left out, with a warning.
    """
    methods = recipe.counted_methods()
    own = recipe.model.name
    models = {own: model_config(own, recipe.model.revision)}
    models |= {name: model_config(name) for name in (*ARCHITECTURES, *recipe.report.models)}
    counts: dict[str, dict[str, dict[str, int]]] = {}
    own_rank = 0
    with Progress(total=len(models) * (len(methods) + 1), desc="parameters", unit=" methods") as bar:
        for model, config in models.items():
            try:
                equal_rank = equal_parameter_rank(config, peft_config(recipe.adapter))
            except ValueError as error:
                if model == own:
                    raise ConfigError([f"adapter: cannot be put on {model}: {error}"]) from None
                log.warning("%s is left out, the recipe's adapter cannot be put on it: %s", model, error)
                bar.update(len(methods) + 1)
                continue
            own_rank = equal_rank if model == own else own_rank
            counts[model] = {}
            for name, section in {**methods, EQUAL_LORA: recipe.lora(equal_rank)}.items():
                try:
                    counts[model][name] = count(config, peft_config(section), len(recipe.tasks))
                except ValueError as error:
                    log.warning("%s cannot be put on %s: %s", name, model, error)
                bar.update()
    return counts, own_rank


def _throughput(recipe: ReportRecipe, methods: dict[str, Any], prepared: Prepared) -> Throughput:
    lora = recipe.lora_of_pairs
    comparisons = [(lora, lora)]
    for name in dict.fromkeys(["trex", *recipe.report.timed]):
        # Each time first against the one that is alive already.
        baselines = sorted((lora, EQUAL_LORA), key=lambda other: other != comparisons[-1][1])
        comparisons += [(name, baseline) for baseline in baselines if name != baseline]
    return measure(recipe, recipe.report.timing, methods, comparisons, prepared)


def _specialization(recipe: ReportRecipe, prepared: Prepared) -> Specialization | str:
    """What an adapter's routing shows, or why it could not be looked at."""
    folder = Path(recipe.report.adapter or Path(recipe.output_dir) / ADAPTER_FOLDER)
    if AdapterFolder(folder).config is None:
        return f"no trained adapter in {folder}: run trex-ds train first, or name one with --report.adapter DIR"
    try:
        return specialization(folder, prepared, recipe.seed)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    except torch.OutOfMemoryError as error:
        return f"the whole base model is needed on one device to look at the routing, and does not fit: {error}"


def _write(report: Report, folder: Path) -> None:
    content = {
        "report.json": json.dumps(report.to_dict(), indent=1) + "\n",
        "report.md": to_markdown(report),
        "report.html": to_html(report),
    }
    for name, text in content.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _print(report: Report, folder: Path, how_to_open_mlflow: str) -> None:
    out = console()
    made = verdict_table(report.verdicts)
    out.print(Table(made.title, made.head[:-1], [row[:-1] for row in made.rows], numbers=False))
    for verdict in report.verdicts:
        if verdict.outcome == claims.UNKNOWN:
            out.print(f"{verdict.claim}: {verdict.reason}")
    out.print(f"report: {folder / 'report.html'} (and report.md, report.json)")
    out.print(f"MLflow: {how_to_open_mlflow}")


def check(report: Report) -> int:
    """The exit status of `--check`: 1 if a checked claim does not hold, which is said on standard error; else 0.

    On other ranks than 0 it is 0: a launcher ends all of them as soon as one fails, before rank 0 has spoken.
    """
    if rank() != 0:
        return 0
    wrong = claims.failed(report.verdicts)
    out = console(stderr=True)
    for verdict in wrong:
        out.print(f"does not hold: {verdict.claim}, against {verdict.against}: {verdict.reason}")
    unknown = [v.claim for v in report.verdicts if v.checked and v.outcome == claims.UNKNOWN]
    if unknown:
        out.print(f"undecided, which is not a failure: {'; '.join(dict.fromkeys(unknown))}")
    return 1 if wrong else 0
