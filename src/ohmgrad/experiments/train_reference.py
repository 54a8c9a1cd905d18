"""Every section and key of `ohmgrad train`'s files, from the dataclasses that check them, for docs/train.md.

python -m ohmgrad.experiments.train_reference docs/train.md        writes it anew
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ohmgrad.devices import Device
from ohmgrad.experiments.train_settings import MAY_BE_ABSENT, PICKS, PLAIN, SECTIONS
from ohmgrad.files import write

START = "<!-- what follows is written by `python -m ohmgrad.experiments.train_reference docs/train.md` -->\n"
KINDS = {float: "number", int: "whole number", bool: "true or false", str: "string"}


def reference() -> str:
    """The text, Markdown."""
    return "\n".join(line for section in SECTIONS for line in _section(section))


def with_reference(page: str) -> str:
    """A page whose text after START is written anew."""
    return page.split(START)[0] + START + "\n" + reference()


def _section(section: str) -> Iterator[str]:
    yield f"## [{section}]{' (may be absent)' if section in MAY_BE_ABSENT else ''}\n"
    if section in PLAIN:
        yield from _keys(PLAIN[section], f"[{section}")
        return
    key, families, default = PICKS[section]
    yield f"`{key}`, {f'by default `{default}`' if default else 'has to be given'}, picks among the following.\n"
    usual: dict[str, Any] = {}
    if section == "device":
        yield "Every device has these keys:\n"
        yield from _keys(Device, "[device")
        usual = {field.name: field.default for field in dataclasses.fields(Device)}
    seen: set[type] = set()
    for name, of in families.items():
        yield f"### {section} `{name}`\n"
        if type(of) in seen:
            yield _others(of)
        else:
            yield from _keys(of, f"[{section}", usual)
            seen.add(of if isinstance(of, type) else type(of))


def _keys(of: Any, section: str, usual: Mapping[str, Any] = MappingProxyType({})) -> Iterator[str]:
    """What a dataclass, or an instance of one, is, and a table of its fields but for those with a usual default."""
    kind = of if isinstance(of, type) else type(of)
    hints, nested, rows = typing.get_type_hints(kind), [], []
    for field in dataclasses.fields(kind):
        inner, default = _inner(hints[field.name]), _default(field) if of is kind else getattr(of, field.name)
        if dataclasses.is_dataclass(inner):
            nested.append((f"{section}.{field.name}", inner))
        if field.name not in usual or usual[field.name] != default:
            rows.append(f"| `{field.name}` | {_words(hints[field.name])} | {_toml(default)} |")
    yield f"```text\n{_doc(kind)}\n```\n"
    if rows:
        yield "\n".join(["| key | value | default |", "|---|---|---|", *rows, ""])
    for name, inner in nested:
        yield f"### {name}]\n"
        yield from _keys(inner, name)


def _others(of: Any) -> str:
    """What an instance has otherwise than its class."""
    values = {f.name: getattr(of, f.name) for f in dataclasses.fields(of) if getattr(of, f.name) != f.default}
    text = ", ".join(f"`{name} = {_toml(value)}`" for name, value in values.items())
    return f"`{type(of).__name__}` with {text or 'all its defaults'}.\n"


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _inner(hint: Any) -> Any:
    """X of X | None, and of X | Tensor."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (h for h in typing.get_args(hint) if h not in (types.NoneType, torch.Tensor))
    return hint


def _words(hint: Any) -> str:
    inner, args = _inner(hint), typing.get_args(_inner(hint))
    if typing.get_origin(inner) is typing.Literal:
        words = " or ".join(f'"{a}"' for a in args)
    elif typing.get_origin(inner) is tuple:
        words = f"list of {KINDS[args[0]]}s" if args[-1] is Ellipsis else f"list of {len(args)} {KINDS[args[0]]}s"
    else:
        words = KINDS.get(inner, "section")
    return f'{words}, or "none"' if types.NoneType in typing.get_args(hint) else words


def _toml(value: Any) -> str:
    """As a file has it."""
    if value is dataclasses.MISSING:
        return "has to be given"
    if value is None:
        return '"none"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else repr(value).replace("'", '"')


def _doc(kind: type) -> str:
    """The docstring without errors and examples."""
    paragraphs = re.split(r"\n\n+", inspect.getdoc(kind) or "")
    return "\n\n".join(p for p in paragraphs if not p.startswith((">>>", "Raises:")))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    text = with_reference(target.read_text())
    write(target, lambda path: path.write_text(text))
