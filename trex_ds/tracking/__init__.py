"""Tracking: MLflow in the background, and always a local file of metrics."""
