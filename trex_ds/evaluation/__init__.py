"""Accuracy per task from generated answers."""

from trex_ds.evaluation.accuracy import Estimate, Evaluation, Item
from trex_ds.evaluation.generation import EvaluationConfig, Question, answer, evaluate

__all__ = ["Estimate", "Evaluation", "EvaluationConfig", "Item", "Question", "answer", "evaluate"]
