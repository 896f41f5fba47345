"""Files are read, and every mistake is told with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from ikeway.config.fields import Duration, Kind, Listed, Network, Section
from ikeway.config.reading import read_document, validate
from ikeway.config.secrets import Secret
from ikeway.errors import ConfigError, ConfigErrors


class Inner(Section):
    address: str
    mode: Literal["tunnel", "transport"] = "tunnel"
    every: Duration = 1.0
    password: Secret | None = None
    networks: Listed[Network] = ()


class Outer(Section):
    first: Inner
    several: dict[str, Inner] = Field(default={})
    count: int = 3


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def mistakes(path: Path) -> list[ConfigError]:
    _, problems = validate(read_document(path), Outer)
    with pytest.raises(ConfigErrors) as caught:
        problems.raise_if_any()
    return list(caught.value.errors)


def test_a_right_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'count = 4\n[first]\naddress = "x"\nevery = "1h"\nnetworks = "10.0.0.0/8"\n')
    model, problems = validate(read_document(path), Outer)
    assert model is not None
    assert (model.count, model.first.every, str(model.first.networks[0])) == (4, 3600.0, "10.0.0.0/8")
    assert problems.errors == []


def test_every_mistake_at_once_with_line_expectation_and_remedy(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.toml",
        """\
count = "many"

[first]
addres = "x"
mode = "tunel"
every = "soon"
networks = ["10.0.0.0/8",
            "10.1.1.1/8"]

[several.one]
address = 5
""",
    )
    found = {(error.line, error.reason): error for error in mistakes(path)}
    places = sorted(line for line, _ in found)
    assert places == [1, 3, 4, 5, 6, 8, 11]
    by_line = {line: error for (line, _), error in found.items()}
    assert by_line[1].expected == "a whole number"
    assert by_line[1].got == '"many"'
    assert by_line[3].reason == "`address` is missing in [first]"
    assert by_line[4].remedy == "write `address`"
    assert by_line[5].expected == 'one of "tunnel", "transport"'
    assert "1h30m" in by_line[6].expected
    assert by_line[8].remedy == 'write "10.0.0.0/8"'
    assert by_line[11].expected == "a text"
    assert all(error.remedy for error in found.values())
    assert str(by_line[6]).startswith(f"{path}:6: ")


def test_what_is_wrong_does_not_hide_what_is_wrong_elsewhere(tmp_path: Path) -> None:
    """A part that is wrong is left out, and the caller goes on with the rest."""
    path = write(tmp_path / "a.toml", '[first]\naddress = "x"\nevery = "soon"\n[several.one]\nmode = "tunnel"\n')
    model, problems = validate(read_document(path), Outer)
    assert model is not None
    assert model.first.every == 1.0
    assert model.several == {}
    assert problems.was_removed("several", "one")
    problems.add(("several", "one", "mode"), "not told: the table was complained of already")
    problems.add(("first", "address"), "told", remedy="change it")
    assert [error.line for error in problems.errors] == [3, 4, 2]


def test_a_file_of_which_nothing_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", "")
    model, problems = validate(read_document(path), Outer)
    assert model is None
    assert [error.reason for error in problems.errors] == ["`first` is missing in the file"]


def test_syntax_errors_have_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", "a = 1\nb = = 2\n")
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    assert (caught.value.file, caught.value.line) == (str(path), 2)
    assert caught.value.remedy
    unfinished = write(tmp_path / "b.toml", 'a = 1\nb = """x\n')
    with pytest.raises(ConfigError) as caught:
        read_document(unfinished)
    assert caught.value.line == 3


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_document(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        read_document(tmp_path / "latin.toml")
    assert caught.value.line == 2


SECRET = '[first]\naddress = "x"\npassword = "hunter2"\n'


def test_a_secret_in_a_file_that_others_may_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", SECRET, 0o640)
    (error,) = mistakes(path)
    assert error.line == 3
    assert error.remedy == f"chmod 600 {path}"
    assert "hunter2" not in str(error)
    path.chmod(0o600)
    model, problems = validate(read_document(path), Outer)
    assert problems.errors == []
    assert model is not None
    assert model.first.password is not None
    assert "hunter2" not in repr(model)


def test_wrong_secrets_are_never_shown(tmp_path: Path) -> None:
    text = '[first]\naddress = "x"\npassword = { fil = "hunter2" }\n[several.one]\naddress = "x"\npassword = 1234567\n'
    text += '[several.two]\naddress = "x"\npasswort = "hunter3"\n'
    for error in mistakes(write(tmp_path / "a.toml", text)):
        assert not any(secret in str(error) for secret in ("hunter2", "hunter3", "1234567"))


@pytest.mark.root
def test_a_file_of_somebody_else_is_not_private(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", SECRET)
    os.chown(path, 12345, 12345)
    assert not read_document(path).private
    (error,) = mistakes(path)
    assert "belongs to the user 12345" in error.reason
    assert error.remedy == f"chown root {path} && chmod 600 {path}"


def test_a_wrong_element_hides_nothing_else(tmp_path: Path) -> None:
    """One mistake that is complained of twice, or two in one table, once took out the table around them."""
    text = '[first]\naddress = "x"\nneeded = ["10.0.0.0/40"]\n[second]\n[third]\naddress = 5\n'
    text += '[several.one]\naddress = "x"\nmode = "y"\n'
    path = write(tmp_path / "a.toml", text)

    class Two(Section):
        one: int
        two: int

    class Strict(Section):
        address: str
        needed: Listed[Network] = Field(min_length=1)

    class Whole(Section):
        first: Strict
        second: Two
        third: Inner
        several: dict[str, Inner] = Field(min_length=1)

    _, problems = validate(read_document(path), Whole)
    told = [(error.line, error.reason) for error in problems.errors]
    assert told == [
        (3, "`first.needed[1]`: this is no network"),
        (4, "`one` is missing in [second]"),
        (4, "`two` is missing in [second]"),
        (6, "`third.address` is not right"),
        (9, "`several.one.mode` is not right"),
    ]


def test_kinds_of_values_are_described() -> None:
    from ikeway.config.explain import kind_of

    assert kind_of(Inner.model_fields["networks"]).startswith('a network such as "10.1.0.0/16"; or a list')
    assert kind_of(Inner.model_fields["mode"]) == 'one of "tunnel", "transport"'
    assert Kind("x") == Kind("x", secret=False)
