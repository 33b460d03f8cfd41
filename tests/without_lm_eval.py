"""A script of launch/ as it runs where lm-evaluation-harness is not installed: this file, the script, its arguments."""

from __future__ import annotations

import runpy
import sys

sys.modules["lm_eval"] = None  # type: ignore[assignment]  # importing it fails, and importlib finds no such package
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
