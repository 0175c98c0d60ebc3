"""CPU time to import the router's handler from bundle and layer, with compiled modules and without.

A third import is that of a router that uses classification heads, with compiled modules.

    python -m benchmarks.cold_start

Each import runs in its own process, with only the two folders and the standard library on its path. Run it
with the functions' Python version, because other versions do not compile the bundles.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.standin import FUNCTION
from cdk_distilled_router.common import bundles

TURNS = 7
PROGRAM = """
import sys, time
sys.path[:0] = sys.argv[1:]
sys.dont_write_bytecode = True
began = time.process_time()
import router.handler
print((time.process_time() - began) * 1000)
"""


def import_ms(bundle: tuple[Path, Path], **variables: str) -> float:
    """Return the CPU milliseconds of an import from function and layer, with further variables."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(bundle[0]), str(bundle[1] / "python")]
    done = subprocess.run(  # noqa: S603  # our own program
        command,
        # Nothing listens there, so the connections end at once; the authorities are loaded.
        env={"PATH": os.environ["PATH"], **FUNCTION, "AWS_ENDPOINT_URL": "https://127.0.0.1:9", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> int:
    """Measure all in turns; print the medians, and the median of the ratios."""
    if not bundles.is_compiled():
        raise SystemExit(
            f"Run this with Python {'.'.join(map(str, bundles.RUNTIME))}, the functions' version."
        )
    compiled = (bundles.function_bundle("router"), bundles.dependencies_bundle())
    with tempfile.TemporaryDirectory() as folder:
        sources = (Path(folder) / "function", Path(folder) / "layer")
        for bundle, copy in zip(compiled, sources, strict=True):
            shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns(bundles.COMPILED))
        heads = {"HEAD_MODE": "first", "HEAD_BUCKET": "data"}
        turns = [
            (import_ms(compiled), import_ms(sources), import_ms(compiled, **heads)) for _ in range(TURNS)
        ]
    print("| compiled, ms | sources, ms | ratio | with heads |\n|---:|---:|---:|---:|")
    medians = [statistics.median(values) for values in zip(*turns, strict=True)]
    ratio = statistics.median(slow / fast for fast, slow, _ in turns)
    more = statistics.median(with_heads / fast for fast, _, with_heads in turns)
    print(f"| {medians[0]:.0f} | {medians[1]:.0f} | **{ratio:.1f}** | {more:.2f} times |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
