"""Processes of a job: what they need to start, how they find each other, how the death of one ends all."""
