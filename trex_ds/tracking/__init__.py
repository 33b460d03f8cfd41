"""Tracking: MLflow in the background, and always a local file of metrics."""

from trex_ds.tracking.origin import git_commit, recipe_hash
from trex_ds.tracking.settings import TrackingConfig
from trex_ds.tracking.tracker import Tracker

__all__ = ["Tracker", "TrackingConfig", "git_commit", "recipe_hash"]
