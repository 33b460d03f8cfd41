"""Accuracy per task, from generated answers and from lm-evaluation-harness."""

from trex_ds.evaluation.accuracy import Estimate, Evaluation, Item
from trex_ds.evaluation.evaluate import EvaluationConfig, evaluate
from trex_ds.evaluation.generation import Question, answer, answer_all

__all__ = ["Estimate", "Evaluation", "EvaluationConfig", "Item", "Question", "answer", "answer_all", "evaluate"]
