"""The command `trex-ds validate` as a script."""

from trex_ds.__main__ import main

if __name__ == "__main__":
    main("validate")
