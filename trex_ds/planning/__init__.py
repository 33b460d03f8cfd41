"""What a recipe would need on a machine, from the model's configuration alone."""
