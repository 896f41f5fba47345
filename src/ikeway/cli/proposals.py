"""`ikeway proposals`: what a proposal says, and what is weak in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import guarded

if TYPE_CHECKING:
    from ikeway.wire.payloads import Proposal, Transform
    from ikeway.wire.registry import TransformType

app = typer.Typer()


@app.command()
@guarded
def proposals(
    proposal: Annotated[
        list[str] | None,
        typer.Argument(help="Proposals to explain; none: those that are used by default.", show_default=False),
    ] = None,
    esp: Annotated[bool, typer.Option("--esp", help="Proposals for ESP (child SAs) in place of IKE.")] = False,
    keywords: Annotated[bool, typer.Option("--keywords", help="List every keyword with what it stands for.")] = False,
) -> None:
    """Explain proposals: each algorithm by its registered name, and what is weak.

    Proposals are written as for strongSwan: keywords with hyphens between them. Several keywords of one kind are
    alternatives, the first is preferred.

    [bold]Examples[/bold]

      ikeway proposals                                       the defaults for IKE

      ikeway proposals --esp                                 the defaults for ESP

      ikeway proposals aes256gcm16-prfsha384-x25519 3des-sha1-modp1024

      ikeway proposals --keywords
    """
    from ikeway.ike.proposals import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS, parse_proposals
    from ikeway.wire.registry import ProtocolId

    if keywords:
        _list_keywords()
        return
    protocol = ProtocolId.ESP if esp else ProtocolId.IKE
    if proposal:
        chosen = tuple(each for text in proposal for each in parse_proposals(text, protocol))
    else:
        chosen = DEFAULT_ESP_PROPOSALS if esp else DEFAULT_IKE_PROPOSALS
        print(f"By default, for {'ESP' if esp else 'IKE'}, in this order:\n")
    print("\n\n".join(_explain(each) for each in chosen))


def _explain(proposal: Proposal) -> str:
    from ikeway.ike.proposals import format_proposal, weaknesses

    kinds = {
        "ENCR": "encryption",
        "PRF": "key derivation",
        "INTEG": "integrity",
        "KE": "key exchange",
        "ESN": "sequence numbers",
    }
    lines = [format_proposal(proposal)]
    by_kind: dict[str, list[str]] = {}
    for transform in proposal.transforms:
        kind = kinds.get(transform.type.name, f"additional {transform.type.name}")
        by_kind.setdefault(kind, []).append(_name(transform))
    lines += [f"  {kind:<17}{', '.join(names)}" for kind, names in by_kind.items()]
    lines += [f"  weak: {weakness}" for weakness in weaknesses(proposal)] or ["  nothing in it is known to be weak"]
    return "\n".join(lines)


def _name(transform: Transform) -> str:
    from ikeway.wire.registry import Registry, TransformType

    if transform.type == TransformType.ESN:
        return "extended (64 bits)" if transform.id else "32 bits"
    name = transform.id.name if isinstance(transform.id, Registry) else str(transform.id)
    return f"{name} ({transform.key_length} bits)" if transform.key_length else name


def _list_keywords() -> None:
    from ikeway.crypto.names import BY_KEYWORD, weakness_of
    from ikeway.wire.payloads import Transform

    by_key: dict[tuple[TransformType, int, int | None], list[str]] = {}
    for keyword, key in BY_KEYWORD.items():
        by_key.setdefault(key, []).append(keyword)
    last = None
    for key in sorted(by_key, key=lambda each: (each[0], each[1], each[2] or 0)):
        if key[0] != last:
            last = key[0]
            print(f"\n{last.name}" if last.value > 1 else last.name)
        weak = "  (weak)" if weakness_of(key) else ""
        print(f"  {', '.join(by_key[key]):<44} {_name(Transform.of(*key))}{weak}")
