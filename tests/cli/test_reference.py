"""The documentation says what the code does: references are made from it, examples are read by it.

`UPDATE_DOCS=1 pytest tests/cli/test_reference.py` writes the references anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ikeway.cli.reference import Subject, reference_of
from ikeway.client.profile_model import ProfileFile
from ikeway.config.explain import fields_of, model_of
from ikeway.config.fields import Section
from ikeway.config.reading import read_document, validate
from ikeway.esp.drops import Drop
from ikeway.gateway.config_model import GatewayFile
from ikeway.gateway.users import UsersFile
from tests.config.material import write_private

DOCS = Path(__file__).parents[2] / "docs"
PLACES = {
    "profile.md": (Subject.PROFILE,),
    "gateway.md": (Subject.GATEWAY, Subject.USERS),
    "commands.md": (Subject.COMMANDS,),
}
MODELS = {Subject.PROFILE: ProfileFile, Subject.GATEWAY: GatewayFile, Subject.USERS: UsersFile}


def filled(text: str, subject: Subject) -> str:
    pattern = rf"(<!-- reference: {subject} -->\n).*?(<!-- end -->)"
    assert re.search(pattern, text, re.DOTALL), f"no place for the reference of {subject}"
    return re.sub(
        pattern, lambda found: f"{found[1]}\n{reference_of(subject)}\n{found[2]}", text, count=1, flags=re.DOTALL
    )


@pytest.mark.parametrize("name", PLACES)
def test_references_are_those_of_the_code(name: str) -> None:
    path = DOCS / name
    text = path.read_text()
    wanted = text
    for subject in PLACES[name]:
        wanted = filled(wanted, subject)
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
    else:
        assert text == wanted, "the reference is old: UPDATE_DOCS=1 pytest tests/cli/test_reference.py"


def test_every_reason_for_a_drop_is_told() -> None:
    text = (DOCS / "measuring.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \| (?:in|out|both) \|", text, re.MULTILINE) == [each.value for each in Drop]


def keys(model: type[Section]) -> set[str]:
    found: set[str] = set()
    for name, field in fields_of(model).items():
        inner = model_of(field)
        found.add(name)
        if inner is not None and issubclass(inner, Section) and inner.__name__ != "SecretSource":
            found |= keys(inner)
    return found


@pytest.mark.parametrize("subject", MODELS)
def test_every_key_has_a_meaning(subject: Subject) -> None:
    text = reference_of(subject)
    for name in keys(MODELS[subject]):
        assert re.search(
            rf"^\| `{name}` \| [^|]+ \|(?:\\\||[^|])+\| [^|]{{10,}} \|$|`\[+[a-zA-Z.]*\b{name}\b", text, re.MULTILINE
        ), name


def test_no_word_of_a_help_is_taken_for_markup() -> None:
    """`[ike]` in a docstring would vanish from the terminal."""
    told = reference_of(Subject.COMMANDS)
    assert not re.findall(r"(?<![`\\])\[[a-z][a-z_.]*\](?!\()", told)


def examples() -> list[tuple[str, int, str]]:
    found = []
    for name in ("profile.md", "gateway.md"):
        blocks = re.findall(r"```toml\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
        assert len(blocks) >= 3
        found += [(name, number, block) for number, block in enumerate(blocks, 1)]
    return found


@pytest.mark.parametrize(("name", "number", "text"), examples())
def test_examples_are_right(name: str, number: int, text: str, tmp_path: Path) -> None:
    model: type[Section] = ProfileFile if name == "profile.md" else UsersFile if "[users" in text else GatewayFile
    document = read_document(write_private(tmp_path / "x.toml", text))
    _, problems = validate(document, model)
    problems.raise_if_any()
