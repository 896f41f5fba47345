"""The tables of docs/anyconnect.md and docs/dialects.md say of every setting what the code says, and the options that
the modules have without a configuration are those that a configuration has by default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from ikeway.config import dialects
from ikeway.config.explain import fields_of
from ikeway.config.fields import Section
from ikeway.config.reference import default_of
from ikeway.dialects.anyconnect.options import ClientOptions, GatewayOptions
from ikeway.dialects.fortigate import FortiGateOptions

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {
    "anyconnect.md": {"profile": dialects.AnyConnectClientSection, "gateway": dialects.AnyConnectGatewaySection},
    "dialects.md": {"profile": dialects.FortiGateSection, "gateway": dialects.FortiGateGatewaySection},
}


def rows(name: str) -> list[tuple[str, list[str], str, str]]:
    """Setting, where it is, default and source of each row of the table of settings."""
    table = re.search(r"^\| setting \| in \|.*?\n\n", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)
    assert table is not None
    found = []
    for line in table[0].strip().splitlines()[2:]:
        setting, places, default, source, _ = (cell.strip() for cell in line.strip("|").split(" | "))
        found.append((setting.strip("| `"), places.split(", "), default, source))
    return found


def told(name: str, place: str) -> dict[str, str]:
    found = [(setting, default) for setting, places, default, _ in rows(name) if place in places]
    assert len(dict(found)) == len(found), "a setting is there twice"
    return dict(found)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("place", ["profile", "gateway"])
def test_every_setting_has_its_row_and_its_default(name: str, place: str) -> None:
    model: type[Section] = TABLES[name][place]
    assert told(name, place) == {key: default_of(field) for key, field in fields_of(model).items()}


@pytest.mark.parametrize("name", TABLES)
def test_every_setting_has_a_source(name: str) -> None:
    for setting, places, _, source in rows(name):
        assert set(places) <= {"profile", "gateway"}, setting
        assert source, setting


OF_THE_HOST = {"device", "unique_id"}  # from the profile's name


@pytest.mark.parametrize(
    "made,usual",
    [
        (dialects.client_options(dialects.AnyConnectClientSection(), "work"), ClientOptions()),
        (dialects.gateway_options(dialects.AnyConnectGatewaySection(), (), (), None), GatewayOptions()),
        (dialects.fortigate_options(dialects.FortiGateSection(), "work", ""), FortiGateOptions()),
    ],
    ids=["client", "gateway", "fortigate"],
)
def test_options_without_a_configuration_are_its_defaults(made: object, usual: object) -> None:
    assert type(made) is type(usual)
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        if field.name not in OF_THE_HOST:
            assert getattr(made, field.name) == getattr(usual, field.name), field.name


def test_what_is_made_of_the_profile_s_name_has_the_length_that_is_told() -> None:
    device = dialects.client_options(dialects.AnyConnectClientSection(), "work").device
    assert (device.version, device.platform) == (ClientOptions().device.version, ClientOptions().device.platform)
    attributes = dict(device.attributes)
    assert re.fullmatch("[0-9a-f]{64}", attributes["unique-id"])
    assert re.fullmatch("[0-9a-f]{40}", attributes["unique-id-global"])
    assert re.fullmatch("[0-9A-F]{32}", dialects.fortigate_options(dialects.FortiGateSection(), "work", "").unique_id)


CHANGES = {
    ("anyconnect.md", "profile"): (dialects.AnyConnectClientSection, lambda it: dialects.client_options(it, "work")),
    ("anyconnect.md", "gateway"): (
        dialects.AnyConnectGatewaySection,
        lambda it: dialects.gateway_options(it, ("a.example",), (), _certificate()),
    ),
    ("dialects.md", "profile"): (
        dialects.FortiGateSection,
        lambda it: (dialects.fortigate_options(it, "work", ""), dialects.fortigate_session(it).keywords),
    ),
    ("dialects.md", "gateway"): (
        dialects.FortiGateGatewaySection,
        lambda it: dialects.fortigate_authenticator(it).keywords,
    ),
}
OTHERS = {
    "vendor_ids": "0x0102",
    "auth_vendor_id": "none",
    "signature_hash": "sha256",
    "fragments": "standard",
    "host_scan": {"profile": "echo", "gateway": True},
    "groups": ["a"],
    "split_include": "10.0.0.0/8",
    "split_dns": "b.example",
    "default_domain": "b.example",
    "server_cert_hash": "public-key",
    "second_factor": "identity",
    "second_factor_auth": "msk",
    "csport": 444,
}


@pytest.mark.parametrize("name,place", CHANGES)
def test_no_setting_does_nothing(name: str, place: str) -> None:
    """Another value of any of them makes other options."""
    model, options = CHANGES[name, place]
    usual = options(model())
    for setting, field in fields_of(model).items():
        value = OTHERS.get(setting)
        value = value[place] if isinstance(value, dict) else value
        if value is None:
            default = field.get_default(call_default_factory=True)
            value = (not default) if isinstance(default, bool) else 7 if isinstance(default, int) else "other"
            value = 7 if setting == "network_id" else value
        assert options(model.model_validate({setting: value})) != usual, setting


def _certificate():
    from tests.dialects.anyconnect import pki

    return pki().gateway.chain[0]
