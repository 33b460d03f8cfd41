"""The evaluation job: a saved adapter, a LoRA or a bare model on tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.utils import handle_non_serializable

from trex_ds.adapters.loading import load_adapted
from trex_ds.config import ConfigError, to_dict
from trex_ds.distributed import on_rank_zero, rank
from trex_ds.environment import describe_environment
from trex_ds.evaluation.context_intuition import EmbeddedIntuition
from trex_ds.evaluation.harness import check_room
from trex_ds.evaluation.harness_model import ContextIntuition, TRexLM
from trex_ds.files import atomic_path
from trex_ds.launching.process_group import naming_the_rank, start_distributed
from trex_ds.lm_evaluation.arguments import EvaluationOptions
from trex_ds.lm_evaluation.table import Results, Row, means_of, print_table, rows_of, trained_tasks
from trex_ds.modeling.base import load_base_model, load_tokenizer
from trex_ds.protocols import Tokenizer
from trex_ds.tasks.harness.index import manager, quiet
from trex_ds.tasks.harness.loading import Loaded, load_tasks
from trex_ds.tasks.harness.scoring import rehearse

TIMEOUT_MINUTES = 2.0
"""How long a rank may be silent before the others give up."""
EMBEDDING_BATCH = 32

_BOOTSTRAP = 1000  # draws, for the errors of metrics that are no mean


def run(options: EvaluationOptions) -> list[Row] | None:
    """Evaluate, print the table and write the results; every rank calls it.

    Writes to `options.output`, where it takes the place of an earlier evaluation: lm-eval's own results, as
    `results.json` and `results_base.json`, and every item, as `samples/TASK.jsonl` and `samples_base/TASK.jsonl`, of
    each task as soon as it is evaluated; then `table.json`.

    Returns:
        The table, on rank 0.

    Raises:
        ConfigError: tasks or their data cannot be loaded or scored, or the tokenizer lacks what was asked for.
        RuntimeError: no table could be made of the results, which are kept.
    """
    device = start_distributed(TIMEOUT_MINUTES)
    with naming_the_rank():
        try:
            loaded = load_tasks(options.task_names, options.mirror)
            for task in loaded.tasks.values():
                rehearse(task)
        except ValueError as error:
            raise ConfigError([f"--tasks: {error}"]) from error
        if rank() == 0:
            _say_what_keeps_its_shots(options, loaded)
        model, tokenizer, context_intuition = _load(options, device)
        if options.apply_chat_template and tokenizer.chat_template is None:
            name = tokenizer.name_or_path
            raise ConfigError([f"--apply_chat_template: the tokenizer of {name!r} has no chat template; leave it out"])
        check_room(loaded, model, tokenizer)
        compared = not options.no_base and (options.adapter or options.lora)
        on_rank_zero(lambda: _clear(options.output))
        results = _evaluate(model, tokenizer, context_intuition, options, loaded, device, "")
        base = None
        if compared:
            with model.disable_adapter():
                base = _evaluate(model, tokenizer, None, options, loaded, device, "_base")
        if rank() != 0:
            return None
        assert results is not None
        try:
            trained = trained_tasks(options.adapter or options.lora, loaded)
            rows = rows_of(options.task_names, loaded, results, base, trained)
            means = means_of(rows)
            _save_table(options, rows, means)
            print_table(rows, means, options.output)
        except Exception as error:
            raise RuntimeError(
                f"no table could be made ({type(error).__name__}: {error}), but all results and items are in "
                f"{options.output}"
            ) from error
        return rows


def _say_what_keeps_its_shots(options: EvaluationOptions, loaded: Loaded) -> None:
    kept = [name for name, task in loaded.tasks.items() if task.config.num_fewshot == 0]
    if options.num_fewshot and kept:
        more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        warnings.warn(
            f"--num_fewshot {options.num_fewshot}: has no effect on {', '.join(kept[:3])}{more}, which lm-eval asks "
            "without examples",
            stacklevel=2,
        )


def _load(options: EvaluationOptions, device: torch.device) -> tuple[Any, Any, ContextIntuition | None]:
    """Model, tokenizer, and where intuition of contexts comes from."""
    if options.adapter is not None:
        from trex_ds.answering import Answerer

        try:
            answerer = Answerer.from_adapter(options.adapter, options.model)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError([f"--adapter: {error}"]) from error
        intuition = answerer.intuition
        context_intuition = None
        if intuition is not None:
            context_intuition = EmbeddedIntuition(intuition.embedder, intuition.centroids, EMBEDDING_BATCH)
        return answerer.model.eval(), answerer.tokenizer, context_intuition
    base = options.base_model
    assert base is not None
    model = load_base_model(base)
    if options.lora is not None:
        model = load_adapted(model, options.lora)
    return model.to(device).eval(), load_tokenizer(base.name, base.revision), None


def _evaluate(
    model: Any,
    tokenizer: Tokenizer,
    context_intuition: ContextIntuition | None,
    options: EvaluationOptions,
    loaded: Loaded,
    device: torch.device,
    suffix: str,
) -> Results | None:
    """lm-eval's results on the first rank of each machine, None elsewhere; a collective.

    Rank 0 writes what has been found each time that one of the tasks, groups and tags is done.
    """
    lm = TRexLM(model, tokenizer, context_intuition, batch_size=options.batch_size, device=device)
    together: Results | None = None
    for name, members in loaded.members.items():
        with quiet():
            results = lm_eval.simple_evaluate(
                model=lm,
                tasks=[loaded.groups[name]] if name in loaded.groups else [loaded.tasks[one] for one in members],
                num_fewshot=options.num_fewshot,
                limit=options.limit,
                batch_size=options.batch_size,
                device=str(device),
                bootstrap_iters=_BOOTSTRAP,
                apply_chat_template=options.apply_chat_template,
                task_manager=manager(options.task_names[0]),  # it has nothing to look up, but would index all tasks
            )
        if results is not None:
            named = options.model or model.get_base_model().name_or_path
            results["config"] |= {"model": "trex_ds", "model_args": {"base": named, "adapter": options.adapter}}
            results["config"]["model_args"] |= {"lora": options.lora, "intuition": context_intuition is not None}
            together = results if together is None else _joined(together, results)
        on_rank_zero(partial(_save, options.output, suffix, together or {}, members))
    return together


def _joined(before: Results, results: Results) -> Results:
    """The results of two evaluations of different tasks as those of one."""
    return {
        name: value | results.get(name, {}) if isinstance(value, dict) else value
        for name, value in {**results, **before}.items()
    }


def _clear(output: Path) -> None:
    """Remove the files of an earlier evaluation, so that they do not mix with this one's."""
    for pattern in ("table.json", "results.json", "results_base.json", "samples/*.jsonl", "samples_base/*.jsonl"):
        for file in output.glob(pattern):
            file.unlink()


def _save(output: Path, suffix: str, results: Results, tasks: Sequence[str]) -> None:
    """The items of these tasks, and all results so far."""
    for task in tasks:
        with atomic_path(output / f"samples{suffix}" / f"{task}.jsonl") as temporary:
            lines = (_json(sample) + "\n" for sample in results["samples"][task])
            temporary.write_text("".join(lines), encoding="utf-8")
    _write(output / f"results{suffix}.json", {name: value for name, value in results.items() if name != "samples"})


def _save_table(options: EvaluationOptions, rows: Sequence[Row], means: Sequence[Row]) -> None:
    table = {
        "rows": [asdict(row) for row in rows],
        "means": [asdict(row) for row in means],
        "arguments": to_dict(options),
        "environment": describe_environment(),
    }
    _write(options.output / "table.json", table)


def _write(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(_json(content, indent=1) + "\n", encoding="utf-8")


def _json(content: Any, **settings: Any) -> str:
    return json.dumps(content, default=handle_non_serializable, ensure_ascii=False, **settings)
