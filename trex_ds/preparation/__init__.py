"""Preparation of a job: the model is tried, examples are cached and encoded, prompts are scored."""
