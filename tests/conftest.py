"""What every test may rely on: tests that this machine cannot run are left out with the reason, and said at the end.

In CI nothing may be left out: there a test that would be skipped fails.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says nothing on a machine that does other things too.
hypothesis.settings.register_profile("ikeway", deadline=None)
hypothesis.settings.load_profile("ikeway")

IN_CI = bool(os.environ.get("CI"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that has put us into the background (`make test &` in a script) ignores both for us and all whom we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # So does nohup(1), with this one: a shell among the commands under test could not trap it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

PEER_PROGRAMS = {
    "/usr/lib/ipsec/charon": "strongswan-charon",
    "/usr/sbin/swanctl": "strongswan-swanctl",
    "/usr/sbin/charon-cmd": "charon-cmd",
    "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so": "libcharon-extra-plugins",
    "/usr/lib/ipsec/plugins/libstrongswan-eap-mschapv2.so": "libcharon-extauth-plugins",
    "/usr/lib/ipsec/plugins/libstrongswan-chapoly.so": "libstrongswan-extra-plugins",
}
# Programs that a test names one by one: `@pytest.mark.programs("freeradius")`, by Debian's package.
OTHER_PROGRAMS = {
    "freeradius": "/usr/sbin/freeradius",
    "freeradius-utils": "/usr/bin/radclient",
    "eapoltest": "/usr/bin/eapol_test",
    "hostapd": "/usr/sbin/hostapd",
    "softhsm2": "/usr/bin/softhsm2-util",
    "openconnect": "/usr/sbin/openconnect",
    "ocserv": "/usr/sbin/ocserv",
}
HOST_PROGRAMS = {"ip": "iproute2", "ping": "iputils-ping", "nft": "nftables", "ethtool": "ethtool"}


@functools.cache
def missing_for_root() -> str:
    """Why tests of the host (namespaces, TUN) cannot run here; empty when they can."""
    if sys.platform != "linux":
        return "not Linux"
    if os.geteuid() != 0:
        return "not root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    packages = [package for program, package in HOST_PROGRAMS.items() if shutil.which(program) is None]
    return f"not installed: {' '.join(packages)}" if packages else _cannot_make_namespaces()


def _cannot_make_namespaces() -> str:
    """Try it in a child, for a container may forget CAP_SYS_ADMIN."""
    child = os.fork()
    if child == 0:
        try:
            _unshare(0x40000000 | 0x00020000)  # CLONE_NEWNET | CLONE_NEWNS
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "" if os.waitstatus_to_exitcode(status) == 0 else "no right to make network namespaces (CAP_SYS_ADMIN)"


def _unshare(flags: int) -> None:
    """os.unshare() of Python 3.12, for 3.11."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


@functools.cache
def missing_for_peer() -> str:
    """Why tests with strongSwan cannot run here; empty when they can."""
    packages = sorted({package for path, package in PEER_PROGRAMS.items() if not Path(path).exists()})
    return f"strongSwan is not (all) here; Debian: apt-get install {' '.join(packages)}" if packages else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: guests with a kernel of their own, then all that needs the host."""

    def place(item: pytest.Item) -> int:
        if item.path.parent.name == "kernel":
            return 0
        return 1 if item.get_closest_marker("peer") or item.get_closest_marker("root") else 2

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Tests go to the cores one by one; those of one guest (tests/kernel) stay together, as it is booted once for all."""
    from xdist.scheduler import LoadScopeScheduling

    class OneBoot(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            name, _, parameters = nodeid.partition("[")
            if "/kernel/" not in name:
                return nodeid
            return name if "xfrm_interfaces" in name else f"{name}[{parameters.partition('-')[0]}"

    return OneBoot(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what cannot run here, with the reason."""
    if (item.get_closest_marker("root") or item.get_closest_marker("peer")) and (why := missing_for_root()):
        pytest.skip(f"needs root and network namespaces: {why}")
    if item.get_closest_marker("peer") and (why := missing_for_peer()):
        pytest.skip(f"needs a real peer: {why}")
    for marker in item.iter_markers("programs"):
        packages = [package for package in marker.args if not Path(OTHER_PROGRAMS[package]).exists()]
        if packages:
            pytest.skip(f"not installed: {' '.join(packages)}; Debian: apt-get install {' '.join(packages)}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The words of a skip."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, a test that is left out fails."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"left out, which CI does not allow: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"left out, which CI does not allow: {_reason(report)}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and why."""
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        left_out[_reason(report)].append(report.nodeid)
    if not left_out:
        return
    terminalreporter.section("left out", sep="-")
    for reason, names in sorted(left_out.items(), key=lambda entry: -len(entry[1])):
        files = sorted({name.split("::")[0] for name in names})
        terminalreporter.line(f"left out: {len(names)} of {', '.join(files)}, because: {reason}")
