"""What a plan prints, and writes as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trex_ds.config import to_dict
from trex_ds.console import console
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.modeling.held import held_by_this_rank
from trex_ds.planning.candidates import GIB, Candidate, Planner, recommend
from trex_ds.tables import Table


def plan(planner: Planner) -> dict[str, Any]:
    """Everything that a plan says, as plain data for JSON; sizes are bytes."""
    written, best = planner.as_written(), planner.best_of_each()
    recommended = recommend(best)
    recipe = planner.recipe
    return {
        "model": recipe.model.name,
        "machine": {name: getattr(recipe, name) for name in ("nodes", "gpus", "gpu_memory", "cpu_memory")},
        "row_length": recipe.data.max_length,
        "gradient_accumulation_steps": recipe.training.gradient_accumulation_steps,
        "assumptions": to_dict(recipe.assumptions),
        "trained_parameters": sum(p.numel() for p in planner.model.parameters() if p.requires_grad),
        "roles": {
            role: {"parameters": share.parameters, "stored_bytes": share.stored_bytes}
            for role, share in held_by_this_rank(planner.model).roles.items()
        },
        "as_written": _described(written),
        "alternatives": [_described(candidate) for candidate in best],
        "recommended": None if recommended is None else _described(recommended),
        "overrides": None if recommended is None else _overrides(recommended),
    }


def _described(candidate: Candidate) -> dict[str, Any]:
    return {
        "deepspeed": candidate.settings.file,
        "stage": candidate.settings.stage,
        "gradient_checkpointing": candidate.checkpointing,
        "micro_batch_size": candidate.micro_batch,
        "problem": candidate.problem,
        "peak_bytes": candidate.memory.peak,
        "memory": asdict(candidate.memory),
        "traffic": asdict(candidate.traffic),
        "compute_seconds": candidate.compute_seconds,
        "waiting_seconds": candidate.waiting_seconds,
        "tokens_per_second": candidate.tokens_per_second,
    }


def _overrides(candidate: Candidate) -> str:
    return (
        f"--training.deepspeed {candidate.settings.file} --training.micro_batch_size {candidate.micro_batch} "
        f"--training.gradient_checkpointing {str(candidate.checkpointing).lower()}"
    )


def save_plan(made: dict[str, Any], path: Path) -> None:
    """Write a plan with date and versions."""
    write_json(path, {**made, "environment": describe_environment()})


def print_plan(made: dict[str, Any]) -> None:
    """Parameters, the recipe as it is, the alternatives, and which of them is recommended."""
    out = console()
    machine = made["machine"]
    out.print(
        f"{made['model']} on {machine['nodes']} x {machine['gpus']} GPUs of {machine['gpu_memory']:g} GiB, "
        f"rows of {made['row_length']} tokens"
    )
    out.print(_parameters(made))
    out.print(_as_written(made))
    out.print(_alternatives(made))
    assumed = ", ".join(f"{name} {value:g}" for name, value in made["assumptions"].items())
    out.print(
        "ckpt: training.gradient_checkpointing. rows: training.micro_batch_size, the least at the best speed. "
        "GiB: of each GPU. GB sent: by each rank in a forward and backward pass, in that many gathers of weights. "
        "speed: tokens a second over the fastest's."
    )
    out.print(f"assumed, not measured (--assumptions.NAME VALUE): {assumed}")
    if made["overrides"] is None:
        out.print("nothing fits: take more or larger GPUs, shorter rows, or a configuration that offloads")
    else:
        ranks = machine["nodes"] * machine["gpus"]
        before, after = (
            ranks * made["gradient_accumulation_steps"] * made[which]["micro_batch_size"]
            for which in ("as_written", "recommended")
        )
        out.print(f"best: {made['overrides']}")
        out.print(f"an optimizer step then has {after} rows; in the recipe as it is, {before}")


def _parameters(made: dict[str, Any]) -> Table:
    rows = [[role, f"{s['parameters']:,}", _gib(s["stored_bytes"])] for role, s in made["roles"].items()]
    trained = ["trained", f"{made['trained_parameters']:,}", ""]
    return Table("Parameters", ["role", "number", "stored, GiB"], [*rows, trained], lines_after={len(rows) - 1})


def _as_written(made: dict[str, Any]) -> Table:
    chosen = made["as_written"]
    memory = chosen["memory"]
    moment = {"gathered weights, buffers": memory["gathered"], "activations": memory["activations"]}
    if memory["step"] > memory["gathered"] + memory["activations"]:
        moment = {"optimizer's step": memory["step"]}
    sizes: dict[str, list[int]] = {}
    for place, parts in enumerate((memory["kept"] | moment, memory["cpu"], memory["nvme"])):
        for part, size in parts.items():
            sizes.setdefault(part, [0, 0, 0])[place] = size
    rows = [[part, *(_gib(size) if size else "" for size in own)] for part, own in sizes.items()]
    rows.append(["CUDA (assumed)", f"{made['assumptions']['cuda_memory']:.2f}", "", ""])
    total = chosen["peak_bytes"] + made["assumptions"]["cuda_memory"] * GIB
    at_most = ["at most", _gib(total), _gib(sum(memory["cpu"].values())), _gib(sum(memory["nvme"].values()))]
    return Table(
        f"The recipe as it is, GiB of each rank: {_name(chosen)}",
        ["part", "GPU", "CPU", "disk"],
        [*rows, at_most],
        note=f"{chosen['problem'] or 'it fits'}; {_sent(chosen, made)}",
        lines_after={len(rows) - 1},
    )


def _sent(chosen: dict[str, Any], made: dict[str, Any]) -> str:
    traffic, passes = chosen["traffic"], made["gradient_accumulation_steps"]
    sent = passes * (traffic["gather_bytes"] + traffic["reduce_bytes"]) + traffic["step_bytes"]
    calls = passes * traffic["gather_calls"] + traffic["step_calls"]
    return f"a step sends {sent / 1e9:.3g} GB from each rank, weights in {calls:,} collectives"


def _alternatives(made: dict[str, Any]) -> Table:
    rows = []
    best = max((c["tokens_per_second"] for c in made["alternatives"] if c["problem"] is None), default=None)
    for chosen in made["alternatives"]:
        traffic = chosen["traffic"]
        fits = chosen["problem"] is None and best is not None
        rows.append(
            [
                Path(chosen["deepspeed"]).name,
                "yes" if chosen["gradient_checkpointing"] else "no",
                str(chosen["micro_batch_size"]),
                _gib(chosen["peak_bytes"] + made["assumptions"]["cuda_memory"] * GIB),
                f"{(traffic['gather_bytes'] + traffic['reduce_bytes']) / 1e9:.3g}",
                f"{traffic['gather_calls']:,}",
                f"{chosen['tokens_per_second'] / best:.2f}" if fits else "no fit",
            ]
        )
    head = ["DeepSpeed file", "ckpt", "rows", "GiB", "GB sent", "gathers", "speed"]
    return Table("Alternatives, each with its best micro batch", head, rows)


def _name(chosen: dict[str, Any]) -> str:
    checkpointing = "with" if chosen["gradient_checkpointing"] else "without"
    return f"{chosen['deepspeed']}, micro batch {chosen['micro_batch_size']}, {checkpointing} checkpointing"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
