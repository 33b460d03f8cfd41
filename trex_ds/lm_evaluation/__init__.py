"""The eval command: an adapter beside its base model on tasks of lm-evaluation-harness."""
