"""The same model on the same benchmark items by lm-eval's own HFLM and by trex_ds: do they agree?

    python benchmarks/hflm.py --mirror DIR [--items 25] [--output benchmarks/results/hflm.json]

`--mirror` is a folder whose `<hub id>` subfolders hold the datasets; without it they come from the hub.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM

from trex_ds.environment import describe_environment
from trex_ds.evaluation.harness_model import TRexLM
from trex_ds.files import write_json
from trex_ds.modeling.base import load_base_model, load_tokenizer
from trex_ds.modeling.config import ModelConfig
from trex_ds.tasks.harness.index import quiet
from trex_ds.tasks.harness.loading import load_tasks

TASKS = "boolq,wic,copa,sglue_rte,cb,wsc,openbookqa,commonsense_qa,arc_easy,winogrande"


def evaluate(lm: Any, tasks: dict[str, Any], items: int) -> tuple[dict[str, Any], float]:
    """lm-eval's results, and the seconds that they took."""
    started = time.perf_counter()
    with quiet():
        results = lm_eval.evaluate(lm=lm, task_dict={"tasks": tasks}, limit=items, bootstrap_iters=0)
    return results, time.perf_counter() - started


def compare(theirs: dict[str, Any], mine: dict[str, Any], task: str) -> dict[str, Any]:
    """Accuracies, and how far apart the log-likelihoods of a task's requests are."""
    differences, greedy = [], 0
    for first, second in zip(theirs["samples"][task], mine["samples"][task], strict=True):
        assert first["prompt_hash"] == second["prompt_hash"], f"{task}: the items differ"
        for ((value, is_greedy),), ((other, other_greedy),) in zip(first["resps"], second["resps"], strict=True):
            differences.append(abs(value - other))
            greedy += is_greedy == other_greedy
    accuracies = [results["results"][task]["acc,none"] for results in (theirs, mine)]
    return {
        "items": len(theirs["samples"][task]),
        "requests": len(differences),
        "accuracy_hflm": accuracies[0],
        "accuracy_trex_ds": accuracies[1],
        "items_scored_alike": sum(
            a["acc"] == b["acc"] for a, b in zip(theirs["samples"][task], mine["samples"][task], strict=True)
        ),
        "largest_log_likelihood_difference": max(differences),
        "median_log_likelihood_difference": statistics.median(differences),
        "equal_greedy_flags": greedy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", help="folder with the datasets; default: the hub")
    parser.add_argument("--tasks", default=TASKS, help="comma-separated multiple-choice tasks of lm-eval")
    parser.add_argument("--items", type=int, default=25, help="items of each task, the first ones")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", default=ModelConfig().name)
    parser.add_argument("--output", default="benchmarks/results/hflm.json")
    arguments = parser.parse_args()

    names = arguments.tasks.split(",")
    tasks = load_tasks(names, arguments.mirror).tasks
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_base_model(ModelConfig(arguments.model, dtype="float32")).to(device).eval()
    tokenizer = load_tokenizer(arguments.model)
    mine, my_seconds = evaluate(
        TRexLM(model, tokenizer, None, batch_size=arguments.batch_size, device=device), tasks, arguments.items
    )
    hflm = HFLM(model, tokenizer=tokenizer, device=str(device), batch_size=arguments.batch_size)
    theirs, their_seconds = evaluate(hflm, tasks, arguments.items)
    content = {
        "what": "base model, zero-shot, float32: lm-eval's HFLM and trex_ds on the same requests",
        "model": arguments.model,
        "lm_eval": lm_eval.__version__,
        "batch_size": arguments.batch_size,
        "tasks": {name: compare(theirs, mine, name) for name in tasks},
        "seconds_hflm": round(their_seconds, 1),
        "seconds_trex_ds": round(my_seconds, 1),
        "environment": describe_environment(),
    }
    write_json(arguments.output, content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
