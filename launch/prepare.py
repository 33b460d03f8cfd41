"""The command `trex-ds prepare` as a script."""

from trex_ds.__main__ import main

if __name__ == "__main__":
    main("prepare")
