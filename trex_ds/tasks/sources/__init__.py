"""The kinds of task source, a module each."""
