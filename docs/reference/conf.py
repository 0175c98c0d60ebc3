"""Sphinx's configuration for the API reference, whose text is the docstrings: `make reference` builds it."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from constructs import Construct  # noqa: E402

import cdk_distilled_router as library  # noqa: E402
from cdk_distilled_router import props  # noqa: E402
from stacks.settings.explanation import allowed_by, resolved  # noqa: E402

project = "cdk_distilled_router"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["html"]
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False

# Every reference to a class must lead somewhere, except to those of the CDK and of Python. Other projects'
# inventories would be read from the network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(aws_cdk|collections\.abc|constructs|pathlib)\..*")]
# Docstrings write code as Markdown does, in single backticks.
default_role = "literal"
highlight_language = "python"

autosummary_generate = False
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style"), "Cost", "Permissions", "Delete"]

# Public names by the places where their classes are defined, to which annotations refer.
PUBLIC = {
    f"{found.__module__}.{found.__qualname__}": f"{package.__name__}.{name}"
    for package in (props, library)
    for name in package.__all__
    if inspect.isclass(found := getattr(package, name)) or inspect.isfunction(found)
}


def add_parameters(_app: Any, what: str, _name: str, found: Any, _options: Any, lines: list[str]) -> None:
    """Add the parameters of a class: those of `__init__` before the attributes, or the fields of props."""
    if what != "class":
        return
    if issubclass(found, props.Props) and (fields := _fields(found)):
        lines += ["", "Args:", *fields]
    elif issubclass(found, Construct):
        place = lines.index("Attributes:" if "Attributes:" in lines else "Cost:")
        # The first line says that the construct is declared.
        lines[place:place] = [*inspect.cleandoc(found.__init__.__doc__).splitlines()[1:], ""]


def _fields(found: type[props.Props]) -> list[str]:
    """Return a line for each field that has a description; the class's docstring describes the others."""
    schema = found.model_json_schema()["properties"]
    return [
        f"    {name}: {field.description} Allowed: {allowed_by(resolved(schema[name]))}."
        for name, field in found.model_fields.items()
        if field.description
    ]


def resolve_public(app: Any, _env: Any, node: Any, content: Any) -> Any:
    """Link an annotation to the public name of its class."""
    public = PUBLIC.get(node["reftarget"])
    if public is None:
        return None
    python = app.env.get_domain("py")
    return python.resolve_xref(app.env, node["refdoc"], app.builder, "obj", public, node, content)


class Shown:
    """A default as a signature shows it: of our objects, only what differs from their own defaults."""

    def __init__(self, default: object) -> None:
        """Show a default."""
        self._default = default

    def __repr__(self) -> str:
        default = self._default
        if isinstance(default, props.Props):
            given = default.model_dump(exclude_defaults=True)
        elif dataclasses.is_dataclass(default):
            given = {
                field.name: value
                for field in dataclasses.fields(default)
                if (value := getattr(default, field.name)) != own_default(field)
            }
        else:
            return repr(default)
        return f"{type(default).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def own_default(field: dataclasses.Field[Any]) -> object:
    """Return the default of a dataclass's field; MISSING if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def signature_of(found: type[Any]) -> inspect.Signature:
    """Return the signature of a class.

    A field of props has limits in its annotation, which its description has as text, so only its default is
    shown. Sphinx would take the signature of a construct from jsii's metaclass.
    """
    keyword, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    if issubclass(found, props.Props):
        fields = found.model_fields.items()
        defaults = {name: required if field.is_required() else field.default for name, field in fields}
        return inspect.Signature(
            [inspect.Parameter(name, keyword, default=default) for name, default in defaults.items()]
        )
    if getattr(found, "_is_protocol", False):
        return inspect.Signature()
    fields_ = dataclasses.fields(found) if dataclasses.is_dataclass(found) else ()
    made = {each.name: own_default(each) for each in fields_}
    whole = inspect.signature(found.__init__, eval_str=True)
    parameters = [
        each if each.default is required else each.replace(default=Shown(made.get(each.name, each.default)))
        for each in whole.parameters.values()
    ]
    return whole.replace(parameters=parameters[1:], return_annotation=required)


def sign(found: Any) -> None:
    """Set the signature of a class, and leave out the annotations of props."""
    found.__signature__ = signature_of(found)
    if issubclass(found, props.Props):
        found.__annotations__ = {}


def setup(app: Any) -> None:
    """Set the signatures, and register the handlers; napoleon then reads the parameters that they add."""
    for public in PUBLIC.values():
        package, _, name = public.rpartition(".")
        found: Any = getattr(sys.modules[package], name)
        if inspect.isclass(found):
            sign(found)
    app.connect("autodoc-process-docstring", add_parameters, priority=400)
    app.connect("missing-reference", resolve_public)
