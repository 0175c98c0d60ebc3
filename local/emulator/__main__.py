"""Run the emulator under hypercorn: `python local/emulator --bind 127.0.0.1:4566 …`."""

from __future__ import annotations

import sys

from hypercorn.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["serve:app", *sys.argv[1:]]))
