"""Answers from raw text: everything that a saved adapter needs is found from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from trex_ds.adapter_folder import AdapterFolder
from trex_ds.adapters.loading import load_adapted
from trex_ds.data.encoding import encode_prompt
from trex_ds.evaluation.batches import length_batches
from trex_ds.evaluation.generation import answer
from trex_ds.intuition.scorer import Intuition
from trex_ds.modeling.base import fetch_base_model, load_base_model, load_tokenizer
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.identity import check_base
from trex_ds.protocols import CausalLM, Tokenizer
from trex_ds.tasks.base import Example
from trex_ds.tasks.forms import Forms, forms_of, is_plain


class Answerer:
    """A base model with its adapter and, where its method takes it, the adapter's own intuition."""

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        intuition: Intuition | None,
        system_prompt: str | None,
        tasks: Sequence[str] | None = None,
        forms: Forms | None = None,
        escape: bool = False,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.intuition = intuition
        self.system_prompt = system_prompt
        self.tasks = tasks
        self.forms: Forms = forms or {}
        self.escape = escape

    @classmethod
    def from_adapter(cls, folder: str | Path, model: str | None = None) -> Answerer:
        """Load what `trex-ds train` saved in an `adapter/` folder.

        Args:
            folder: the adapter's.
            model: its base model, a folder or hub id, if it is no longer where it was.

        Raises:
            FileNotFoundError: if the folder lacks one of its files, naming it.
            ValueError: if base model or embedder cannot be opened, or the base model is not the adapter's.
        """
        folder = Path(folder)
        own = AdapterFolder(folder)
        for name in own.missing():
            raise FileNotFoundError(
                f"{folder} has no {name}, so it is not a complete adapter; name the adapter/ folder that "
                "trex-ds train wrote, or copy it again"
            )
        recipe = own.recipe
        assert recipe is not None, "not among the missing"
        config = ModelConfig(**recipe["model"])
        if model is not None:
            config = replace(config, name=model, revision=None)
        problem = config.quantization_problem()
        if problems := [*config.problems_here(), *([f"quantization: {problem}"] if problem else [])]:
            moved = (
                "" if model else "; if it is elsewhere now, say where: --model FOLDER (from_adapter(..., model=...))"
            )
            raise ValueError(f"the base model of {folder} cannot be loaded: {'; '.join(problems)}{moved}")
        fetch_base_model(config)
        check_base(config, folder)
        intuition = Intuition.from_adapter(folder) if own.has_centroids else None
        base = load_base_model(config)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        adapted = load_adapted(base, folder).to(device).eval()
        # Its own, since the base model's may have got another chat template after the adapter was trained.
        saved = (folder / "tokenizer_config.json").is_file()
        tokenizer = load_tokenizer(str(folder)) if saved else load_tokenizer(config.name, config.revision)
        tasks = own.tasks if own.answers_by_task else None
        forms = own.forms
        if forms is None:
            forms = forms_of(recipe.get("tasks", ()), tokenizer.chat_template is not None)
        data = recipe["data"]
        escape = data.get("escape_control_tokens", False)
        return cls(adapted, tokenizer, intuition, data["system_prompt"], tasks, forms, escape)

    def __call__(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        task: str | None = None,
        form: Literal["chat", "plain"] | None = None,
    ) -> list[str]:
        """Greedy answers to `prompts`, one each.

        Args:
            prompts: raw texts.
            max_new_tokens: longest answer.
            task: the task that all prompts belong to; only for methods that learn tasks apart.
            form: "plain" puts the prompts as they stand, as lm_eval tasks do, "chat" as messages to an assistant
                (lines of their own, if the adapter's tokenizer has no chat template). None: as it was trained.

        Raises:
            ValueError: the adapter was trained in both forms, and neither `form` nor `task` says which.
            ValueError: if `task` is not one that the adapter learned, or the method does not learn tasks apart.
        """
        if self.tasks is None and task is not None:
            raise ValueError(f"the adapter does not answer by task (only poly and mhr do), got {task!r}; leave it out")
        if self.tasks is not None and task not in self.tasks:
            raise ValueError(f"the adapter answers by task: give one of {', '.join(self.tasks)}; got {task!r}")
        numbers = None if self.tasks is None else [self.tasks.index(task)] * len(prompts)
        plain = is_plain(self.forms, task, form, self.tasks or ())
        examples = [Example(prompt, "", "", plain=plain) for prompt in prompts]
        ids = [encode_prompt(self.tokenizer, e, self.system_prompt, escape=self.escape) for e in examples]
        scores = [None] * len(prompts) if self.intuition is None else list(self.intuition(prompts))
        answers: dict[int, str] = {}
        for batch in length_batches(self.model, ids, max(1, len(ids))):
            texts = answer(
                self.model,
                self.tokenizer,
                [ids[i] for i in batch],
                [scores[i] for i in batch],
                max_new_tokens,
                self.model.device,
                None if numbers is None else [numbers[i] for i in batch],
            )
            answers.update(zip(batch, texts, strict=True))
        return [answers[i] for i in range(len(ids))]
