"""The reference of a configuration file, made from its pydantic model, so that the two cannot part."""

from __future__ import annotations

import ipaddress
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ikeway.config.explain import Annotation, fields_of, kind_of, model_of
from ikeway.config.fields import DURATION_TEXT, SIZE_TEXT
from ikeway.config.secrets import SecretSource

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def reference(model: type[BaseModel]) -> str:
    """Markdown: one section with a table for each table of the file."""
    return "\n".join(_section(model, ())).rstrip() + "\n"


def format_duration(seconds: float) -> str:
    """Seconds as a file would have them: 5400 is `1h30m`."""
    if seconds == 0:
        return "never"
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    left, text = int(seconds), ""
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text


def _section(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    inner: list[tuple[str, FieldInfo, type[BaseModel]]] = []
    rows = []
    for name, field in fields_of(model).items():
        table = model_of(field)
        if table is not None and table is not SecretSource:
            inner.append((name, field, table))
        else:
            rows.append((name, field))
    if path:
        yield f"### `[{'.'.join(path)}]`\n"
        yield f"{(model.__doc__ or '').strip()}\n"
    if rows:
        yield "| key | value | default | meaning |"
        yield "|---|---|---|---|"
        for name, field in rows:
            cells = (f"`{name}`", kind_of(field), default_of(field), field.description or "")
            yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
        yield ""
    for name, field, table in inner:
        repeated = typing.get_origin(field.annotation) is dict
        if repeated and field.description:
            yield f"{field.description}\n"
        same = _extra(field).get("shown")
        if same:
            title = f"[{'.'.join((*path, name))}]"
            title = f"[{title}]" if typing.get_origin(field.annotation) is tuple else title  # an array of tables
            yield f"### `{title}`\n\n{field.description} By default {same}.\n"
            continue
        yield from _section(table, (*path, name, "NAME") if repeated else (*path, name))


def default_of(field: FieldInfo) -> str:
    """A key's default as references tell it."""
    if field.is_required():
        return "**needed**"
    shown = _extra(field).get("shown")
    if isinstance(shown, str):
        return shown if " " in shown else f"`{shown}`"
    value = field.get_default(call_default_factory=True)
    text = _toml(value, kind_of(field))
    return f"`{text}`" if text else "none"


def _toml(value: Annotation, kind: str) -> str:
    """A default as the file would have it; empty for none."""
    if value is None or value in ((), ""):
        return ""
    if kind == DURATION_TEXT:
        return f'"{format_duration(value)}"'
    if kind == SIZE_TEXT and value == 0:
        return '"never"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.12g}"
    if isinstance(value, str | Path | ipaddress.IPv4Address | ipaddress.IPv6Address):
        return f'"{value}"'
    return f"[{', '.join(_toml(each, '') for each in value)}]"


def _extra(field: FieldInfo) -> dict[str, object]:
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
