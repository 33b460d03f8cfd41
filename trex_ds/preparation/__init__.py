"""Before the first training step: the model is tried, examples are cached and encoded, prompts are scored."""
