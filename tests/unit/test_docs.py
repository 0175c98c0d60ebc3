"""The documents agree with the project: links resolve, and what they name exists."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from operate.__main__ import COMMANDS
from stacks.settings.explanation import resolved, schema

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
DOCUMENTS = [
    *(README, PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md"),
    *(PROJECT / "benchmarks" / "README.md", PROJECT / "data" / "README.md"),
    *(path for folder in ("docs", "examples") for path in sorted((PROJECT / folder).rglob("*.md"))),
]
# Half of its length before parts of it became separate pages.
README_WORDS = 1700
PICTURES = sorted((PROJECT / "docs").rglob("*.svg"))

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]*\ssrc=\"([^\"]+)\"")
_CODE = re.compile(r"`([^`\n]+)`")
_TARGET = re.compile(r"\bmake ((?:[a-z][a-z-]*)|\.[a-z/.]+)\b")
_SETTING = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)(?: = (.+))?")
_SECTION = re.compile(r"\[([a-z_]+(?:\.[a-z_]+)*)\]")
_MODULE = re.compile(r"\bpython -m ([a-z_][a-z_.]*[a-z_])")
_COMMAND = re.compile(r"\bpython -m operate ([a-z][a-z-]*)")
_PLACE = re.compile(
    r"(?:benchmarks|cdk_distilled_router|data|docs|examples|lambda|local|operate|stacks|task|tests)/[\w./-]*"
)
_INSTALLED_MODULES = {"pytest", "pip", "venv"}
# Words with a dot that are file names.
_FILE_ENDINGS = {"py", "md", "toml", "txt", "json", "jsonl", "svg", "sh"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def relative(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def setting_keys(node: dict[str, object], prefix: str = "") -> Iterator[str]:
    properties = node["properties"]
    assert isinstance(properties, dict)
    for name, raw in properties.items():
        yield f"{prefix}{name}"
        inside = resolved(raw)
        if "properties" in inside:
            yield from setting_keys(inside, f"{prefix}{name}.")


KEYS = set(setting_keys(schema()))
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text_of(path)), re.MULTILINE)
    return {anchor_of(heading) for heading in headings}


def contents_problems(text: str) -> list[str]:
    """Return how the list of contents differs from the sections that follow it; empty if it is complete."""
    headings = re.findall(r"^## (.+)$", _FENCE.sub("", text), re.MULTILINE)
    if "Contents" not in headings:
        return ["there is no section Contents"]
    section = text.partition("\n## Contents\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", section, re.MULTILINE)
    expected = [(heading, f"#{anchor_of(heading)}") for heading in headings if heading != "Contents"]
    if listed == expected:
        return []
    differing = [entry for entry in (*expected, *listed) if (entry in expected) != (entry in listed)]
    return [f"{heading}: {anchor}" for heading, anchor in differing] or ["the order differs"]


def links(text: str) -> list[str]:
    return [first or second for first, second in _LINK.findall(_FENCE.sub("", text))]


def broken_link(document: Path, link: str) -> str | None:
    """Return why a relative link leads nowhere, or None."""
    if re.match(r"[a-z]+:", link):
        return None
    place, _, anchor = link.partition("#")
    target = (document.parent / place).resolve() if place else document
    if not target.exists():
        return f"{link}: no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: no such heading"
    return None


def unknown_settings(text: str) -> list[str]:
    """Return what is written like a setting in `code` but is none."""
    found = []
    for code in _CODE.findall(_FENCE.sub("", text)):
        if section := _SECTION.fullmatch(code):
            if section[1] not in KEYS:
                found.append(code)
            continue
        match = _SETTING.fullmatch(code)
        if match is None or match[1].rpartition(".")[2] in _FILE_ENDINGS:
            continue
        first = match[1].partition(".")[0]
        if match[1] not in KEYS and (first in SECTIONS or match[2] is not None):
            found.append(code)
    return found


def named_targets(text: str) -> set[str]:
    """Return the make targets that a document says to run, in `code` and in code blocks."""
    blocks = [*_FENCE.findall(text), *_CODE.findall(_FENCE.sub("", text))]
    return {target for block in blocks for target in _TARGET.findall(block)}


def unknown_modules(text: str) -> list[str]:
    """Return the modules that a document runs with `python -m` and that don't exist here."""
    named = {name for name in _MODULE.findall(text) if name.partition(".")[0] not in _INSTALLED_MODULES}
    places = {name: PROJECT / Path(*name.split(".")) for name in sorted(named)}
    return [
        name
        for name, place in places.items()
        if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file()
    ]


def missing_places(text: str) -> list[str]:
    """Return the files and folders of this project that a document names in `code` and that don't exist."""
    named = {code for code in _CODE.findall(_FENCE.sub("", text)) if _PLACE.fullmatch(code)}
    return [place for place in sorted(named) if not (PROJECT / place).exists()]


TARGETS = set(re.findall(r"^([a-z][a-z-]*):", text_of(PROJECT / "Makefile"), re.MULTILINE))


def in_each_document(find: Callable[[Path], Collection[str]]) -> dict[str, Collection[str]]:
    """Return the findings by document, without documents that have none."""
    return {relative(document): found for document in DOCUMENTS if (found := find(document))}


def test_relative_links_and_images_resolve() -> None:
    def broken(document: Path) -> list[str]:
        problems = (broken_link(document, link) for link in links(text_of(document)))
        return [problem for problem in problems if problem]

    assert in_each_document(broken) == {}


def test_targets_of_make_exist() -> None:
    assert in_each_document(lambda document: named_targets(text_of(document)) - TARGETS) == {}


def test_modules_that_are_run_exist() -> None:
    assert in_each_document(lambda document: unknown_modules(text_of(document))) == {}


def test_files_and_folders_exist() -> None:
    assert in_each_document(lambda document: missing_places(text_of(document))) == {}


def test_commands_of_operate_exist() -> None:
    assert in_each_document(lambda document: set(_COMMAND.findall(text_of(document))) - COMMANDS.keys()) == {}


def test_settings_exist() -> None:
    assert in_each_document(lambda document: unknown_settings(text_of(document))) == {}


def test_environment_files_exist() -> None:
    def missing(document: Path) -> list[str]:
        names = set(re.findall(r"\benvironments/([a-z0-9.-]+\.(?:toml|json))", text_of(document)))
        return [name for name in sorted(names) if not (PROJECT / "environments" / name).is_file()]

    assert in_each_document(missing) == {}


@pytest.mark.parametrize("picture", PICTURES, ids=relative)
def test_a_picture_is_xml_with_a_title(picture: Path) -> None:
    namespace = {"svg": "http://www.w3.org/2000/svg"}
    root = ET.fromstring(text_of(picture))
    title = root.find("svg:title", namespace)
    assert title is not None
    assert (title.text or "").strip()


def test_readme_is_short_and_its_contents_are_complete() -> None:
    text = text_of(README)
    assert len(text.split()) <= README_WORDS
    assert contents_problems(text) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [README]
    while waiting:
        document = waiting.pop()
        if document in reached or document.suffix != ".md":
            continue
        reached.add(document)
        places = [link.partition("#")[0] for link in links(text_of(document)) if "://" not in link]
        waiting += [(document.parent / place).resolve() for place in places if place]
    assert [relative(document) for document in DOCUMENTS if document not in reached] == []


def test_every_decision_is_listed() -> None:
    folder = PROJECT / "docs" / "decisions"
    listed = links(text_of(folder / "README.md"))
    assert listed == [path.name for path in sorted(folder.glob("0*.md"))]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("`gate.minimum_valid_output`", []),
        ('`endpoint.kind = "on_demand"`', []),
        ("`[distillation.hyperparameters]`", []),
        ("`task.toml` and `jobs.ensure`", []),
        ("`gate.minimum_beauty`", ["`gate.minimum_beauty`"]),
        ('`gates.kind = "on_demand"`', ['`gates.kind = "on_demand"`']),
        ("`[gates]`", ["`[gates]`"]),
    ],
)
def test_the_check_of_settings_can_fail(text: str, problems: list[str]) -> None:
    assert [f"`{found}`" for found in unknown_settings(text)] == problems


@pytest.mark.parametrize("link", ["nowhere.md", "docs/settings.md#nothing", "#nothing"])
def test_the_check_of_links_can_fail(link: str) -> None:
    assert broken_link(PROJECT / "README.md", link) is not None


def test_the_check_of_targets_can_fail() -> None:
    assert named_targets("run `make coffee`, or make tea\n```\nmake local QUERIES=x\n```\n") == {
        "coffee",
        "local",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# Title\n\n## One\n", "there is no section Contents"),
        ("# Title\n\n## Contents\n\n- [One](#one)\n\n## One\n\n## Two\n", "Two: #two"),
        ("# Title\n\n## Contents\n\n- [One](#one)\n- [Two](#two)\n\n## One\n", "Two: #two"),
        ("# T\n\n## Contents\n\n- [B](#b)\n- [A](#a)\n\n## A\n\n## B\n", "the order differs"),
    ],
)
def test_the_check_of_contents_can_fail(text: str, problem: str) -> None:
    assert contents_problems(text) == [problem]


def test_the_check_of_modules_can_fail() -> None:
    text = "`python -m operate.cost`, `python -m brew --strong` and python -m pytest"
    assert unknown_modules(text) == ["brew"]


def test_the_check_of_files_can_fail() -> None:
    text = "`stacks/`, `docs/nothing.md`, `lambda/<name>/` and `tests/unit/test_docs.py`"
    assert missing_places(text) == ["docs/nothing.md"]
