"""The evaluation job: a saved adapter, a LoRA or a bare model on tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.utils import handle_non_serializable

from trex_ds.adapters.loading import load_adapted
from trex_ds.config import ConfigError
from trex_ds.console import console
from trex_ds.distributed import rank
from trex_ds.environment import describe_environment
from trex_ds.evaluation.accuracy import Estimate, estimate
from trex_ds.evaluation.benchmark_arguments import BenchmarkArguments
from trex_ds.evaluation.context_scores import EmbeddedScores
from trex_ds.evaluation.harness import main_metric
from trex_ds.evaluation.harness_model import ContextScores, TRexLM
from trex_ds.files import atomic_path
from trex_ds.modeling import load_base_model, load_tokenizer
from trex_ds.tasks.harness_index import manager, quiet
from trex_ds.tasks.harness_loading import Loaded, load_tasks
from trex_ds.training.launching import naming_the_rank, start_distributed

TIMEOUT_MINUTES = 2.0
"""How long a rank may be silent before the others give up."""
EMBEDDING_BATCH = 32

_BOOTSTRAP = 1000  # draws, for the errors of metrics that are no mean
Results = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: a task, group or tag as it was asked for."""

    task: str
    n: int
    metric: str
    value: float
    standard_error: float | None
    base: float | None = None
    difference: Estimate | None = None
    """To the base model, paired by item; None where a metric has no value for each item."""


def run(arguments: BenchmarkArguments) -> list[Row] | None:
    """Evaluate, print the table and write the results; every rank calls it.

    Writes to `arguments.output`: `table.json`; lm-eval's own results, as `results.json` and
    `results_base.json`; and every item, as `samples/TASK.jsonl` and `samples_base/TASK.jsonl`.

    Returns:
        The table, on rank 0.

    Raises:
        ConfigError: tasks or their data cannot be loaded, or the tokenizer lacks what was asked for.
    """
    device = start_distributed(TIMEOUT_MINUTES)
    with naming_the_rank():
        try:
            loaded = load_tasks(arguments.tasks, arguments.mirror)
        except ValueError as error:
            raise ConfigError([f"--tasks: {error}"]) from error
        model, tokenizer, scores = _load(arguments, device)
        if arguments.apply_chat_template and tokenizer.chat_template is None:
            name = tokenizer.name_or_path
            raise ConfigError([f"--apply_chat_template: the tokenizer of {name!r} has no chat template; leave it out"])
        compared = arguments.base and (arguments.adapter or arguments.lora)
        results = _evaluate(model, tokenizer, scores, arguments, loaded, device)
        base = None
        if compared:
            with model.disable_adapter():
                base = _evaluate(model, tokenizer, None, arguments, loaded, device)
        if rank() != 0:
            return None
        assert results is not None
        rows = [_row(name, loaded, results, base) for name in arguments.tasks]
        _write(arguments, rows, results, base)
        _print(rows, arguments.output)
        return rows


def _load(arguments: BenchmarkArguments, device: torch.device) -> tuple[Any, Any, ContextScores | None]:
    """Model, tokenizer, and where intuition scores come from."""
    if arguments.adapter is not None:
        from trex_ds.answering import Answerer

        try:
            answerer = Answerer.from_adapter(arguments.adapter, arguments.model.name if arguments.model else None)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError([f"--adapter: {error}"]) from error
        intuition = answerer.intuition
        scores = None
        if intuition is not None:
            scores = EmbeddedScores(intuition.embedder, intuition.centroids, EMBEDDING_BATCH)
        return answerer.model.eval(), answerer.tokenizer, scores
    assert arguments.model is not None
    model = load_base_model(arguments.model)
    if arguments.lora is not None:
        model = load_adapted(model, arguments.lora)
    return model.to(device).eval(), load_tokenizer(arguments.model.name, arguments.model.revision), None


def _evaluate(
    model: Any,
    tokenizer: Any,
    scores: ContextScores | None,
    arguments: BenchmarkArguments,
    loaded: Loaded,
    device: torch.device,
) -> Results | None:
    """lm-eval's results on the first rank of each machine, None elsewhere; a collective."""
    lm = TRexLM(model, tokenizer, scores, batch_size=arguments.batch_size, device=device)
    asked: list[Any] = []
    for name, members in loaded.members.items():
        asked += [loaded.groups[name]] if name in loaded.groups else [loaded.tasks[member] for member in members]
    with quiet():
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=asked,
            num_fewshot=arguments.num_fewshot,
            limit=arguments.limit,
            batch_size=arguments.batch_size,
            device=str(device),
            bootstrap_iters=_BOOTSTRAP,
            apply_chat_template=arguments.apply_chat_template,
            task_manager=manager(arguments.tasks[0]),  # it has nothing to look up, but would index all tasks
        )
    if results is not None:
        named = arguments.model.name if arguments.model else model.get_base_model().name_or_path
        results["config"] |= {"model": "trex_ds", "model_args": {"base": named, "adapter": arguments.adapter}}
        results["config"]["model_args"] |= {"lora": arguments.lora, "intuition": scores is not None}
    return results


def _row(name: str, loaded: Loaded, results: Results, base: Results | None) -> Row:
    members = loaded.members[name]
    try:
        values = list(_item_values(members, loaded, results))
    except ValueError:  # no value for each item, so what lm-eval makes of all of them
        return _aggregated(name, members, results, base)
    own = estimate([value for _, value in values])
    metric = ", ".join(dict.fromkeys(metric for metric, _ in values))
    if base is None:
        return Row(name, own.n, metric, own.value, own.standard_error)
    others = [value for _, value in _item_values(members, loaded, base)]
    difference = estimate([mine - other for (_, mine), other in zip(values, others, strict=True)])
    return Row(name, own.n, metric, own.value, own.standard_error, estimate(others).value, difference)


def _item_values(members: tuple[str, ...], loaded: Loaded, results: Results) -> Iterator[tuple[str, float]]:
    """Metric and value of every item of the tasks, in order."""
    for member in members:
        samples = results["samples"][member]
        metric, kept = main_metric(loaded.tasks[member], samples, loaded.groups)
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            if sample["filter"] == kept:
                yield metric, float(sample[metric])


def _aggregated(name: str, members: tuple[str, ...], results: Results, base: Results | None) -> Row:
    found = results["results"][name if name in results["results"] else members[0]]
    key = next(key for key, value in found.items() if "," in key and isinstance(value, float) and "_stderr" not in key)
    metric, kept = key.split(",", 1)
    error = found.get(f"{metric}_stderr,{kept}")
    other = None if base is None else base["results"][found["name"]][key]
    n = sum(results["n-samples"][member]["effective"] for member in members)
    return Row(name, n, metric, found[key], error if isinstance(error, float) else None, other)


def _write(arguments: BenchmarkArguments, rows: list[Row], results: Results, base: Results | None) -> None:
    for suffix, found in {"": results, "_base": base}.items():
        if found is None:
            continue
        for task, samples in found.pop("samples").items():
            with atomic_path(arguments.output / f"samples{suffix}" / f"{task}.jsonl") as temporary:
                temporary.write_text("".join(_json(sample) + "\n" for sample in samples), encoding="utf-8")
        _save(arguments.output / f"results{suffix}.json", found)
    table = {
        "rows": [asdict(row) for row in rows],
        "arguments": asdict(arguments),
        "environment": describe_environment(),
    }
    _save(arguments.output / "table.json", table)


def _save(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(_json(content, indent=1) + "\n", encoding="utf-8")


def _json(content: Any, **settings: Any) -> str:
    return json.dumps(content, default=handle_non_serializable, ensure_ascii=False, **settings)


def _print(rows: list[Row], output: Path) -> None:
    from rich.table import Table

    compared = any(row.base is not None for row in rows)
    table = Table("task", "n", "metric", "value", *(("base", "difference") if compared else ()))
    for row in rows:
        error = "" if row.standard_error is None else f" ± {row.standard_error:.4f}"
        cells = [row.task, str(row.n), row.metric, f"{row.value:.4f}{error}"]
        if compared:
            cells.append("" if row.base is None else f"{row.base:.4f}")
            found = row.difference
            cells.append("" if found is None else f"{found.value:+.4f} ± {found.standard_error:.4f}")
        table.add_row(*cells)
    out = console()
    out.print(table)
    out.print(f"all of it: {output}")
