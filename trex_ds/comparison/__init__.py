"""Comparisons: methods times seeds under one recipe, and what their differences are worth."""
