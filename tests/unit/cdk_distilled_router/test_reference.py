"""The API reference: each public name has a place, each construct says what it must, Sphinx is content."""

from __future__ import annotations

import ast
import contextlib
import html
import http.server
import inspect
import json
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cdk_distilled_router as library
from cdk_distilled_router import props
from operate.cdk import with_tools
from stacks.settings import PROJECT
from tests import documented
from tests.stacks import offline

REFERENCE = PROJECT / "docs" / "reference"
PYTHON = Path(sys.prefix) / "reference" / "bin" / "python"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1000)
SPHINX = """
import sys
from sphinx.cmd.build import main
from tests.stacks.offline import refuse_network
refuse_network()
sys.exit(main(sys.argv[1:]))
"""
# Pages in frames, because Chromium's own windows are at least 500 px wide.
FRAMES = """<!doctype html><title>frames</title><body>{frames}<script>
onload = () => document.title = "PROBE" + JSON.stringify(Array.from(frames, one => ({{
  page: one.location.pathname.split("/").pop(), width: one.innerWidth,
  scroll: one.document.documentElement.scrollWidth,
  requests: one.performance.getEntriesByType("resource").map(each => each.name),
}})));
</script>"""


def names() -> list[str]:
    """Return the names of all that is public and has a meaning by itself."""
    found = [
        f"{package.__name__}.{name}"
        for package in (library, props)
        for name in package.__all__
        if inspect.isfunction(each := getattr(package, name)) or inspect.isclass(each)
    ]
    # The base of all props, and what their own validators use.
    helpers = {f"{props.__name__}.{name}" for name in ("Props", "not_allowed", "one_of")}
    return sorted(set(found) - helpers)


def test_every_public_name_is_on_one_page() -> None:
    pages = [path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.rst"))]
    found = Counter(re.findall(r"^\.\. auto(?:class|function):: (\S+)$", "\n".join(pages), re.MULTILINE))
    assert found == Counter([*names(), "distilled_router.cost.estimate.Spec"])


@pytest.mark.parametrize("name", documented.constructs())
def test_a_construct_has_a_page_that_says_what_it_must(name: str) -> None:
    page = REFERENCE / f"{re.sub(r'(?<!^)(?=[A-Z])', '-', name).lower()}.rst"
    assert f".. autoclass:: cdk_distilled_router.{name}\n" in page.read_text(encoding="utf-8")
    text = inspect.getdoc(getattr(library, name)) or ""
    sections = re.findall(r"^(Example|Cost|Permissions|Delete):+\n\n? +\S", text, re.MULTILINE)
    assert sections == ["Example", "Cost", "Permissions", "Delete"]
    assert any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(documented.examples()[name])))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the reference without network, as `make reference` does; return its folder."""
    if not PYTHON.exists():
        raise RuntimeError(f"Sphinx is not installed at {PYTHON}: run `make reference`.")
    folder = tmp_path_factory.mktemp("reference")
    done = subprocess.run(
        [str(PYTHON), "-c", SPHINX, "-W", "-n", "--keep-going", "-q", str(REFERENCE), str(folder / "html")],
        cwd=PROJECT,
        env=with_tools(offline.environment(folder)),
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "html"


@pytest.mark.slow
def test_sphinx_builds_it_strictly_and_each_construct_has_its_parts(built: Path) -> None:
    for name in documented.constructs():
        page = (built / f"{re.sub(r'(?<!^)(?=[A-Z])', '-', name).lower()}.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<[^>]+>", "", page))
        for part in ("Example:", "Parameters:", "Cost", "Permissions", "Delete"):
            assert f"\n{part}\n" in text, (name, part)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine during a block; yield the address. Files have no list of requests."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def probed(address: str, profile: Path) -> list[dict[str, Any]]:
    """Return what Chromium measures on the pages in the frames at an address."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom")
    command = [str(CHROMIUM), *options, f"--user-data-dir={profile}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    title = re.search(r"<title>PROBE(.*?)</title>", done.stdout)
    assert title, done.stdout[:2_000] + done.stderr[-2_000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(title.group(1)))
    return found


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_pages_fit_a_phone_and_load_nothing_from_elsewhere(built: Path, tmp_path: Path) -> None:
    pages = sorted(path.name for path in built.glob("*.html"))
    sizes = [(page, width) for page in pages for width in WIDTHS]
    frames = [f'<iframe src="{page}" width="{width}" height="800"></iframe>' for page, width in sizes]
    (built / "frames.htm").write_text(FRAMES.format(frames="".join(frames)), encoding="utf-8")
    with served(built) as address:
        found = probed(f"{address}/frames.htm", tmp_path / "profile")
    assert len(found) == len(sizes)
    assert [one for one in found if one["scroll"] > one["width"]] == []
    assert {"/".join(name.split("/")[:3]) for one in found for name in one["requests"]} == {address}
