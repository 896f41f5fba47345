"""Say in a person's words what pydantic found wrong."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ikeway.config.fields import REFUSED, Kind

Annotation: TypeAlias = Any  # a type, a special form of typing, or a FieldInfo: Python has no common type of these


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake at a key path."""

    location: tuple[str | int, ...]
    reason: str
    expected: str = ""
    got: str = ""
    remedy: str = ""


def explain(model: type[BaseModel], detail: ErrorDetails) -> Mistake:
    """Translate one of pydantic's errors about `model`."""
    location = detail["loc"]
    steps = list(_walk(model, location))
    name = spell(location)
    correct = f"correct `{name}`"
    kind = detail["type"]
    if kind == "missing":
        expected = kind_of(steps[-1]) if steps else ""
        where = f"[{spell(location[:-1])}]" if len(location) > 1 else "the file"
        return Mistake(location, f"`{location[-1]}` is missing in {where}", expected, remedy=f"add `{location[-1]}`")
    if kind == "extra_forbidden":
        return _unknown_key(model, location, steps)
    context = detail.get("ctx", {})
    if kind == REFUSED:
        return Mistake(
            location,
            f"`{name}`: {context['reason']}",
            context["expected"],
            context["got"],
            context["remedy"] or correct,
        )
    expected = kind_of(steps[-1]) if steps else ""
    got = "" if any(is_secret(step) for step in steps) else shorten(detail["input"])
    return Mistake(location, f"`{name}` is not right", expected or detail["msg"], got, correct)


def spell(location: Sequence[str | int]) -> str:
    """A location as a person would write it: `connections.office.identities[2]`, counted from 1."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shorten(value: object) -> str:
    """A value as TOML would have it, in few characters."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def kind_of(annotation: Annotation) -> str:
    """What a field wants, in words."""
    if isinstance(annotation, FieldInfo):
        return next(
            (item.text for item in annotation.metadata if isinstance(item, Kind)), kind_of(annotation.annotation)
        )
    origin: Annotation = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        found = next((item.text for item in arguments[1:] if isinstance(item, Kind)), None)
        return found if found is not None else kind_of(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in arguments)
    if origin in {tuple, list}:
        return f"{kind_of(arguments[0])}; or a list of these"
    if origin in {Union, types.UnionType}:
        return " or ".join(kind_of(argument) for argument in arguments if argument is not types.NoneType)
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    return "a table" if model_of(annotation) or origin is dict else ""


def is_secret(annotation: Annotation) -> bool:
    """True when values of this field must not be shown."""
    metadata = annotation.metadata if isinstance(annotation, FieldInfo) else typing.get_args(annotation)[1:]
    inner = annotation.annotation if isinstance(annotation, FieldInfo) else annotation
    if any(isinstance(item, Kind) and item.secret for item in metadata):
        return True
    arguments = typing.get_args(inner)
    return any(is_secret(argument) for argument in arguments if typing.get_origin(argument) is not None)


def model_of(annotation: Annotation) -> type[BaseModel] | None:
    """The model that an annotation wraps: `Model | None`, `dict[str, Model]`, `list[Model]`."""
    if isinstance(annotation, FieldInfo):
        return model_of(annotation.annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in typing.get_args(annotation) if (found := model_of(argument))), None)


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields by the name that the file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _walk(model: type[BaseModel], location: Sequence[str | int]) -> Iterator[Annotation]:
    """The annotations along a location."""
    here: Annotation = model
    for part in location:
        inner = here.annotation if isinstance(here, FieldInfo) else here
        owner = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        if owner is None:
            here = _element(inner)
        else:
            here = fields_of(owner).get(str(part))
        if here is None:
            return
        yield here


def _element(annotation: Annotation) -> Annotation:
    """What the elements of a container (or the sides of a union) are, as far as it matters to find models."""
    arguments = [argument for argument in typing.get_args(annotation) if argument is not types.NoneType]
    origin: Annotation = typing.get_origin(annotation)
    if origin is dict:
        return arguments[1]
    if origin in {list, tuple}:
        return arguments[0]
    if origin in {Annotated, Union, types.UnionType}:
        return _element(arguments[0])
    return None


def _unknown_key(model: type[BaseModel], location: Sequence[str | int], steps: Sequence[Annotation]) -> Mistake:
    *parents, last = location
    holder = model_of(steps[len(parents) - 1]) if parents else model
    known = sorted(fields_of(holder)) if holder else []
    near = difflib.get_close_matches(str(last), known, n=1, cutoff=0.6)
    where = f" in [{spell(parents)}]" if parents else ""
    remedy = f"write `{near[0]}`" if near else f"remove `{last}`"
    return Mistake(tuple(location), f"unknown key `{last}`{where}", ", ".join(known), remedy=remedy)
