"""`ikeway probe` against libreswan and OpenIKED: cases of the suite `others`."""

from __future__ import annotations

from ikeway.wire.registry import TransformType
from ikeway.workbench.probe import ProbeReport, ProbeSettings, State, probe
from tests.interop.network import Way
from tests.kernel import libreswan, openiked
from tests.kernel.daemons import SUITE, Guest

ELSEWHERE = "10.90.0.77"


def ask(guest: Guest, *, transforms: bool = True, ikev1: bool = True) -> ProbeReport:
    settings = ProbeSettings(rate=50, patience=5, transforms=transforms, ikev1=ikev1)
    return guest.network.client.call(lambda: probe(Way.WAN.gateway, settings))


def check(report: ProbeReport, product: str, taken: dict[TransformType, set[str]]) -> None:
    """Exactly what the gateway was configured with, and who made it."""
    text = report.to_text()
    for kind, keywords in taken.items():
        assert {each.keyword for each in report.taken(kind)} == keywords, f"{kind}: {text}"
    assert all(each.state is not State.UNCLEAR for each in report.transforms), text
    assert report.product.name == product, f"{report.product}\n{text}"
    assert report.authentication is not None and report.authentication.refusal == "AUTHENTICATION_FAILED", text
    assert report.ikev1 is not None and not report.ikev1.spoken and not report.weaknesses, text
    assert all(port.answers for port in report.ports), text
    assert not report.nat.we_are_behind and not report.nat.gateway_is_behind, text
    assert "INVALID_KE_PAYLOAD" in report.wrong_group, text


@SUITE.case()
def a_probe_of_libreswan(guest: Guest) -> None:
    with guest.libreswan(guest.network.gateway, libreswan.gateway(Way.WAN)) as daemon:
        report = ask(guest)
        left = daemon.run("ipsec", "whack", "--briefstatus")
        daemon.run("ipsec", "whack", "--global-redirect", "yes", "--global-redirect-to", ELSEWHERE)
        redirected = ask(guest, transforms=False, ikev1=False)
    assert "IKE SAs: total(0)" in left, left
    assert redirected.redirect == ELSEWHERE and not redirected.chosen, redirected.to_text()
    assert "USE_PPK" in report.announced and report.cookie.is_dropped, report.to_text()
    check(
        report,
        "Libreswan",
        {
            TransformType.ENCR: {"aes256gcm16"},
            TransformType.PRF: {"prfsha256"},
            TransformType.INTEG: set(),
            TransformType.KE: {"x25519"},
        },
    )


@SUITE.case()
def a_probe_of_openiked(guest: Guest) -> None:
    with guest.iked(guest.network.gateway, openiked.passive(Way.WAN, "esp from 10.91.0.0/24 to dynamic")):
        report = ask(guest)
    assert "takes it for version 2" in report.version, report.version
    check(
        report,
        "OpenIKED",
        {
            TransformType.ENCR: {"aes256gcm16"},
            TransformType.PRF: {"prfsha256"},
            TransformType.INTEG: set(),
            TransformType.KE: {"x25519"},
        },
    )
