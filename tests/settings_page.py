"""Writes docs/settings.md from the settings: `python -m tests.settings_page`; with `--check` it only looks."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ledger.settings import PREFIX, PRODUCTION, Settings, refused_in_production

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """\
# Settings

All settings are environment variables. They are read once, at the start; a variable that is empty counts as unset.
Whatever cannot be used, a misspelt name included, is refused with one message that names every such variable and
shows no value.

With `LOYALTY_ENVIRONMENT=production` everything is refused that is only good enough to try things: the variables
marked *production* must then be set.

This page is made from the code by `python -m tests.settings_page`.

| variable | default | what it is |
|---|---|---|
"""
KINDS = {str: "Text", int: "A whole number", Path: "A path"}


def meta_of(hint: Any) -> list[Meta]:
    """What a field's type is annotated with, however deep."""
    found = [part for part in get_args(hint)[1:] if isinstance(part, Meta)] if get_origin(hint) is Annotated else []
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return found + [meta for part in inner for meta in meta_of(part)]


def kind_of(hint: Any) -> str:
    """The kind of value a field takes."""
    if get_origin(hint) is Annotated:
        return kind_of(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(hint))
    if hint in KINDS:
        return KINDS[hint]
    return next(kind_of(part) for part in get_args(hint) if part is not type(None))


def limits_of(metas: list[Meta]) -> str:
    """The limits of a value in words; nothing where there are none, or where the description says them."""
    given = {name: value for meta in metas for name in ("ge", "le") if (value := getattr(meta, name)) is not None}
    if "ge" not in given:
        return ""
    return f" From {given['ge']} to {given['le']}." if "le" in given else f" At least {given['ge']}."


def row(field: msgspec.structs.FieldInfo, hint: Any, needed: set[str]) -> str:
    """A setting's line of the table."""
    metas = meta_of(hint)
    description = next(meta.description for meta in metas if meta.description)
    default = "" if field.default is None else f"`{field.default}`"
    production = " *production*" if field.name in needed else ""
    words = f"{description} {kind_of(hint)}.{limits_of(metas)}{production}"
    return f"| `{PREFIX}{field.name.upper()}` | {default} | {words} |\n"


def page() -> str:
    """The whole page."""
    hints = get_type_hints(Settings, include_extras=True)
    needed = needed_in_production()
    return HEAD + "".join(row(field, hints[field.name], needed) for field in msgspec.structs.fields(Settings))


def needed_in_production() -> set[str]:
    """The settings without which production is refused."""
    refused = refused_in_production(Settings(environment=PRODUCTION))
    return {line.partition(":")[0].removeprefix(PREFIX).lower() for line in refused}


def main() -> None:
    """Writes the page, or says whether it is as it must be."""
    if "--check" in sys.argv[1:]:
        sys.exit(
            0
            if PAGE.read_text(encoding="utf-8") == page()
            else f"{PAGE} is out of date: run `python -m tests.settings_page`"
        )
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
