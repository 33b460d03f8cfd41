"""The commands of `trex-ds`, a module each: its docstring is its help, its `main` reads, calls, prints and returns."""
