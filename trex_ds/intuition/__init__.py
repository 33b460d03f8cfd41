"""The intuition pass: prompts to embeddings, to centroids, to the scores that route a sample."""
