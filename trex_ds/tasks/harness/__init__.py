"""Tasks of lm-evaluation-harness: which there are, their data, how they are rendered and scored."""
