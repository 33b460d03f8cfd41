"""Accuracy per task, from generated answers and from lm-evaluation-harness."""
