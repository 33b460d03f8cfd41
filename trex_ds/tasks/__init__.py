"""Tasks: where examples come from and how answers are scored."""
