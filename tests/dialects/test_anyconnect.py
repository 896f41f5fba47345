"""AnyConnect-EAP between our client and our gateway, in memory: nothing here was tried against Cisco's products."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ikeway.auth.binding import carried_identities
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.dialects import for_client, for_gateway, for_responder
from ikeway.dialects.anyconnect import dialect, unity
from ikeway.dialects.anyconnect.authenticator import AnyConnectAuthenticator
from ikeway.dialects.anyconnect.messages import Kind, decode_client, decode_gateway
from ikeway.dialects.anyconnect.options import (
    ANYCONNECT_CLIENT,
    METHOD,
    VENDOR_IDS,
    ClientOptions,
    GatewayOptions,
)
from ikeway.dialects.anyconnect.packet import TlvType, decode, value_of
from ikeway.dialects.anyconnect.peer import HostScanDemanded
from ikeway.eap.errors import EapFailed, WrongPassword
from ikeway.eap.packet import EapPacket, MethodType
from ikeway.eap.questions import PasswordCheck, PasswordQuestion, Prompt
from ikeway.errors import ConfigError
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.settings import ResponderSettings
from ikeway.wire.payloads import Authentication, Configuration, ConfigurationAttribute, Eap, IdInitiator, VendorId
from ikeway.wire.registry import (
    AuthenticationMethod,
    ConfigurationType,
    ExchangeType,
    IdentificationType,
    NotifyType,
)
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from tests.dialects.anyconnect import REPLY, check, pair, pki
from tests.ike.pair import Pair, connection, connection_b

BY_CERTIFICATE = GatewayOptions(password=False, certificate=True)
BOTH = GatewayOptions(certificate=True)


def up(made: Pair) -> Pair:
    made.connect()
    made.agree()
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors
    return made


def failed(made: Pair) -> tuple[Exception, Exception]:
    """The errors of both sides; nothing is left."""
    made.connect()
    made.run(60)
    for host in (made.a, made.b):
        assert host.engine.sas == []
        assert not host.engine._shared.table
    refusals = [event.error for event in made.b.happened(events.Refused)]
    return made.a.errors[0], refusals[0] if refusals else made.b.errors[0]


def documents(made: Pair) -> list[str]:
    """The XML conversation, as the client saw it."""
    found = []
    for event in made.a.log:
        if not isinstance(event, events.MessageSent | events.MessageReceived):
            continue
        for payload in event.message.find_all(Eap):
            packet = EapPacket.decode(payload.packet)
            if packet.type is None:
                found.append(packet.code.name)
                continue
            assert packet.method == METHOD
            xml = value_of(decode(packet.method_data), TlvType.XML)
            read = decode_client if isinstance(event, events.MessageSent) else decode_gateway
            found.append(str(read(xml).kind))
    return found


def messages(made: Pair, exchange: ExchangeType, *, sent: bool):
    kind = events.MessageSent if sent else events.MessageReceived
    return [event.message for event in made.a.happened(kind) if event.message.exchange_type == exchange]


# --- what goes over the wire ------------------------------------------------------------------------------------------


def test_user_name_and_password():
    made = up(pair())
    assert documents(made) == ["hello", "init", "auth-request", "auth-reply", "complete", "ack", "SUCCESS"]
    assert made.b.sa.eap_identity == b"alice"
    (question,) = [each.question for each in made.a.happened(events.Asked)]
    assert isinstance(question, PasswordQuestion)
    assert (question.prompt, question.attempt) == ("Password", 1)


def test_what_is_around_it():
    made = up(pair())
    init, answer = (
        messages(made, ExchangeType.IKE_SA_INIT, sent=True)[0],
        messages(made, ExchangeType.IKE_SA_INIT, sent=False)[0],
    )
    assert tuple(payload.value for payload in init.find_all(VendorId)) == VENDOR_IDS
    assert tuple(payload.value for payload in answer.find_all(VendorId)) == VENDOR_IDS
    first, *later = messages(made, ExchangeType.IKE_AUTH, sent=True)
    reply, *replies = messages(made, ExchangeType.IKE_AUTH, sent=False)
    assert first.find(IdInitiator) == IdInitiator(IdentificationType(201), b"*$AnyConnectClient$*")
    assert not first.find_all(Authentication)
    for message in (first, reply):
        (vendor,) = message.find_all(VendorId)
        assert len(vendor.value) == 20
    assert isinstance(reply.payloads[-1], Eap)
    assert reply.find(Eap).packet[:2] == b"\x01\x01"
    assert not any(message.find_all(VendorId) for message in later + replies)
    assert first.find_all(VendorId) != reply.find_all(VendorId)
    # AUTH of both at the end is made with SK_p, as the method gives no key.
    assert later[-1].find(Authentication).method == AuthenticationMethod.SHARED_KEY_MIC
    assert replies[-1].find(Authentication).method == AuthenticationMethod.SHARED_KEY_MIC


def test_by_certificate():
    made = up(pair(gateway=BY_CERTIFICATE, credential=pki().alice))
    assert documents(made) == ["hello", "init", "auth-request", "init", "complete", "ack", "SUCCESS"]
    assert made.b.sa.eap_identity == b"alice@example.com"
    assert not made.a.happened(events.Asked)


def test_certificate_and_host_scan_as_the_known_conversation_has_it():
    options = replace(BY_CERTIFICATE, host_scan=True)
    made = up(pair(ClientOptions(host_scan="echo"), options, credential=pki().alice))
    assert documents(made) == [
        "hello", "init", "auth-request", "init", "auth-request", "auth-reply", "complete", "ack", "SUCCESS",
    ]  # fmt: skip
    first = [message.find(Eap) for message in messages(made, ExchangeType.IKE_AUTH, sent=True)][2]
    tlvs = decode(EapPacket.decode(first.packet).method_data)
    assert [tlv.type for tlv in tlvs] == [3, 1, 0]


def test_certificate_and_password():
    made = up(pair(gateway=BOTH, credential=pki().alice))
    assert documents(made)[2:8] == ["auth-request", "init", "auth-request", "auth-reply", "complete", "ack"]
    assert made.b.sa.eap_identity == b"alice"


@pytest.mark.parametrize("prf", ["prfsha1", "prfsha256", "prfsha384", "prfsha512"])
def test_every_hash_of_a_prf(prf):
    proposals = parse_proposals(f"aes128-sha256-{prf}-x25519")
    up(pair(gateway=BY_CERTIFICATE, credential=pki().alice, proposals=proposals))


def test_a_second_password_in_the_same_form():
    made = up(pair(gateway=GatewayOptions(second_password=True)))
    assert documents(made).count("auth-reply") == 1


def test_a_second_factor_that_the_gateway_asks_for_afterwards():
    made = up(pair(username="carol", password="second"))
    assert documents(made).count("auth-reply") == 2
    assert made.b.sa.eap_identity == b"carol"
    checks = [each.question for each in made.b.happened(events.Asked) if isinstance(each.question, PasswordCheck)]
    assert [check.state for check in checks] == [None, "proven"]


def test_a_second_factor_in_the_second_password():
    made = up(pair(username="carol", password="second", gateway=GatewayOptions(second_password=True)))
    assert documents(made).count("auth-reply") == 1


@pytest.mark.parametrize("wanted", ["", "sales", "staff"])
def test_a_group(wanted):
    made = up(pair(ClientOptions(group=wanted), GatewayOptions(groups=("staff", "sales"))))
    replies = [
        decode_client(value_of(decode(EapPacket.decode(payload.packet).method_data), TlvType.XML))
        for message in messages(made, ExchangeType.IKE_AUTH, sent=True)[1:-1]
        for payload in message.find_all(Eap)
    ]
    (reply,) = [each for each in replies if each.kind is Kind.AUTH_REPLY]
    assert reply.group_select == (wanted or "staff")
    assert reply.opaque.text_of("tunnel-group") == (wanted or "staff")


def test_a_banner_and_split_tunnelling():
    options = GatewayOptions(
        banner="Be kind.", default_domain="example.com", split_dns=("intra.example",), split_include=("10.1.0.0/16",)
    )
    made = up(pair(gateway=options))
    (received,) = made.a.happened(events.ConfigurationReceived)
    assert received.attributes == (
        *REPLY,
        ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, b"example.com"),
        ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, b"intra.example"),
        ConfigurationAttribute(Attribute.INTERNAL_IP4_SUBNET, bytes.fromhex("0a010000ffff0000")),
    )
    assert "the gateway's banner: Be kind." in [event.what for event in made.a.happened(events.PeerSeen)]
    on_the_wire = messages(made, ExchangeType.IKE_AUTH, sent=False)[-1].find(Configuration)
    assert {int(each.type) for each in on_the_wire.attributes} >= {28672, 28674, 28675, 28676}


def test_unity_attributes_go_only_to_who_asked():
    made = pair(gateway=GatewayOptions(banner="Be kind."))
    spoken = replace(dialect.client(ClientOptions()), requests=())
    made.a.connection = for_client(spoken, replace(made.a.connection, interception=None))
    up(made)
    (received,) = made.a.happened(events.ConfigurationReceived)
    assert received.attributes == REPLY


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [201, 11])
def test_either_type_of_the_identity(kind):
    identity = Identity(IdentificationType(kind), ANYCONNECT_CLIENT.value)
    assert GatewayOptions().are_those_of(identity)
    up(pair(ClientOptions(identity=identity), BY_CERTIFICATE, credential=pki().alice))


def test_other_identities_are_not_anyconnect():
    assert not GatewayOptions().are_those_of(Identity.parse("alice"))
    assert not GatewayOptions().are_those_of(Identity(IdentificationType.ID_FQDN, ANYCONNECT_CLIENT.value))


@pytest.mark.parametrize("octets,expected", [(None, []), (b"CISCO-GRANITE", [b"CISCO-GRANITE"])])
def test_the_vendor_id_of_ike_auth_is_a_setting(octets, expected):
    made = up(pair(ClientOptions(auth_vendor_id=octets), GatewayOptions(auth_vendor_id=octets)))
    for sent in (True, False):
        message = messages(made, ExchangeType.IKE_AUTH, sent=sent)[0]
        assert [payload.value for payload in message.find_all(VendorId)] == expected


def test_the_numbers_of_the_method_are_a_setting():
    other = MethodType(9, 0x12345678)
    made = pair(ClientOptions(method=other), GatewayOptions(method=other))
    up(made)
    client, gateway = failed(pair(ClientOptions(method=other)))
    assert "no EAP method" in str(gateway)
    assert "EAP" in str(client)


@pytest.mark.parametrize("rule", ["sha1", "sha512"])
def test_the_hash_of_the_signature_is_a_setting(rule):
    options = replace(BY_CERTIFICATE, signature_hash=rule)
    up(pair(ClientOptions(signature_hash=rule), options, credential=pki().alice))
    client, gateway = failed(pair(gateway=options, credential=pki().alice))
    assert "does not prove its certificate" in str(gateway)
    assert "refused our certificate" in str(client)


@pytest.mark.parametrize(
    "mode,standard,expected",
    [("cisco", True, 132), ("cisco", False, 132), ("standard", True, 53), ("standard", False, 132)],
)
def test_fragments(mode, standard, expected):
    made = pair(
        ClientOptions(fragments=mode),
        replace(BY_CERTIFICATE, fragments=mode),
        credential=pki().alice,
        fragment_size=576,
        standard_fragments=standard,
    )
    up(made)
    kinds = {datagram.octets[16] for datagram in made.sent if len(datagram.octets) > 500}
    kinds -= {33}  # IKE_SA_INIT, which is never cut
    assert kinds == {expected}


@pytest.mark.parametrize("seed", range(4))
def test_fragments_that_are_lost_doubled_and_late(seed):
    made = pair(gateway=BY_CERTIFICATE, credential=pki().alice, fragment_size=576, seed=seed)
    source = made.source
    made.network = lambda datagram: [source.uniform(0.01, 0.2) for _ in range(source.choice((0, 1, 1, 1, 2)))]
    made.connect()
    made.run(200)
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors


def test_a_gateway_shows_its_vendor_ids_to_anyconnect_alone():
    plain = connection(ike_proposals=connection().ike_proposals)
    heard = dialect.gateway(GatewayOptions())
    responder = for_responder([heard], ResponderSettings(ike_proposals=plain.ike_proposals, cookie_threshold=1000))
    made = Pair(plain, connection_b(), responder=responder)
    up(made)
    assert made.a.sa.peer.vendor_ids == ()
    assert made.b.sa.channel.own_fragmentation is None


def test_a_dialect_changes_nothing_that_the_connection_says_itself():
    own = connection(vendor_ids=(VENDOR_IDS[0],))
    spoken = for_client(dialect.client(ClientOptions()), own)
    assert spoken.local_identity == own.local_identity
    made = Pair(spoken, for_gateway(dialect.gateway(GatewayOptions()), connection_b()))
    up(made)
    sent = [payload.value for payload in messages(made, ExchangeType.IKE_SA_INIT, sent=True)[0].find_all(VendorId)]
    assert sorted(sent) == sorted(VENDOR_IDS)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_not_sent_twice():
    made = pair(password="wrong")
    client, gateway = failed(made)
    assert isinstance(client, WrongPassword)
    assert "wrong password" in str(gateway)
    assert documents(made).count("auth-reply") == 1
    assert "wrong" not in str(client).replace("wrong password", "")


def test_a_person_may_try_again():
    made = pair()
    typed = iter(["a slip", "another slip", "wonderland"])
    made.a.answers[PasswordQuestion] = lambda question: next(typed)
    up(made)
    assert [each.question.attempt for each in made.a.happened(events.Asked)] == [1, 2, 3]


def test_attempts_are_counted():
    made = pair(gateway=GatewayOptions(attempts=2))
    typed = iter(["a slip", "another slip", "wonderland"])
    made.a.answers[PasswordQuestion] = lambda question: next(typed)
    client, gateway = failed(made)
    assert isinstance(client, WrongPassword)
    assert "wrong password" in str(gateway)
    assert documents(made)[-1] == "FAILURE"


def test_nobody_answers():
    made = pair()
    made.a.answers[PasswordQuestion] = lambda question: None
    client, gateway = failed(made)
    # The test's host answers `None` by asking itself; the method says whose answer is missing.
    assert "no password was given" in str(client)
    assert gateway.notify == NotifyType.AUTHENTICATION_FAILED


def test_a_client_without_a_certificate():
    client, gateway = failed(pair(gateway=BY_CERTIFICATE))
    assert "says that it has none" in str(gateway)
    assert isinstance(client, EapFailed)


def test_a_certificate_of_another_authority():
    client, gateway = failed(pair(gateway=BY_CERTIFICATE, credential=pki().stranger))
    assert "Other" in str(gateway) or "trusted" in str(gateway)
    assert "refused our certificate" in str(client)


def test_a_certificate_of_somebody_else():
    _, gateway = failed(pair(gateway=BOTH, username="bob", password="builder", credential=pki().alice))
    assert "the certificate is of somebody else" in str(gateway)
    up(pair(gateway=replace(BOTH, same_user=False), username="bob", password="builder", credential=pki().alice))


def test_a_gateway_that_examines_hosts_is_refused_in_words():
    client, gateway = failed(pair(gateway=GatewayOptions(host_scan=True)))
    assert isinstance(client, HostScanDemanded)
    assert "host_scan" in client.remedy
    assert "left when its host was to be examined" in str(gateway)


def test_a_token_that_the_gateway_did_not_give():
    client, gateway = failed(pair(ClientOptions(host_scan="ABCDEF"), GatewayOptions(host_scan=True)))
    assert "another token" in str(gateway)
    assert "HostScan" in str(client) and not isinstance(client, WrongPassword)


def test_a_group_that_there_is_not():
    client, gateway = failed(pair(ClientOptions(group="board"), GatewayOptions(groups=("staff", "sales"))))
    assert "left at the form" in str(gateway)
    assert "no group 'board'" in str(client)
    assert "staff, sales" in str(client)


def test_a_user_name_that_there_is_not():
    client, _ = failed(pair(username=""))
    assert "username" in client.remedy


def test_hmac_md5_has_no_hash_to_sign_with():
    proposals = parse_proposals("aes128-sha256-prfmd5-x25519")
    client, _ = failed(pair(gateway=BY_CERTIFICATE, credential=pki().alice, proposals=proposals))
    assert "MD5" in str(client)


def test_what_proves_nothing_is_no_configuration():
    with pytest.raises(ConfigError, match="nothing to prove"):
        AnyConnectAuthenticator(GatewayOptions(password=False), bytes)
    with pytest.raises(ConfigError, match="without a CA"):
        AnyConnectAuthenticator(BY_CERTIFICATE, bytes)


def test_the_second_password_of_a_user_without_one():
    made = pair(gateway=GatewayOptions(second_password=True), code="000000")
    _, gateway = failed(made)
    assert "a wrong code" in str(gateway)


@pytest.mark.parametrize("codes,expected", [([None], "left when the code was asked for"), (["1", None], "wrong code")])
def test_who_leaves_in_the_middle_of_the_codes(codes, expected):
    made = pair(username="carol", password="second")
    typed = iter(["second", *codes])
    made.a.answers[PasswordQuestion] = lambda question: next(typed)
    made.b.answers[PasswordCheck] = lambda question: Prompt("Code: ", state="proven")
    _, gateway = failed(made)
    assert expected in str(gateway)


def test_checks_are_asked_with_what_was_typed():
    made = up(pair())
    (question,) = [each.question for each in made.b.happened(events.Asked) if isinstance(each.question, PasswordCheck)]
    assert (question.identity, question.answer) == (b"alice", b"wonderland")
    assert check(question)
    assert "wonderland" not in repr(question)


def test_unity_requests_are_all_asked_for():
    made = up(pair())
    asked = messages(made, ExchangeType.IKE_AUTH, sent=True)[0].find(Configuration)
    assert [each.type for each in asked.attributes] == [
        Attribute.INTERNAL_IP4_ADDRESS,
        *(each.type for each in unity.REQUESTS),
    ]


# --- what the gateway calls itself ------------------------------------------------------------------------------------


def by_its_dn(made: Pair) -> Pair:
    """The gateway says the distinguished name of its certificate, which carries b.example as well."""
    names = carried_identities(pki().gateway.certificate)
    (subject,) = [each for each in names if each.distinguished_name is not None]
    made.b.connection = replace(made.b.connection, local_identity=subject)
    return made


def test_a_gateway_may_say_another_name_of_its_certificate():
    made = up(by_its_dn(pair()))
    assert made.a.sa.remote_identity.distinguished_name is not None


def test_the_wanted_name_must_be_in_the_certificate():
    made = by_its_dn(pair())
    made.a.connection = replace(made.a.connection, remote_identity=IdentityPattern.parse("c.example"))
    client, _ = failed(made)
    assert "not the expected one" in str(client)


def test_without_the_dialect_the_name_that_is_said_counts():
    made = by_its_dn(pair())
    made.a.connection = replace(made.a.connection, any_certificate_name=False)
    client, _ = failed(made)
    assert "not the expected one" in str(client)


# --- what happens around it -------------------------------------------------------------------------------------------


def test_a_cookie_costs_a_round_and_doubles_nothing():
    made = pair()
    responder = replace(made.b.engine.settings.responder, cookie_threshold=0)
    made.b.engine.reconfigure(responder)
    up(made)
    requests = messages(made, ExchangeType.IKE_SA_INIT, sent=True)
    assert len(requests) == 2
    assert all(len(request.find_all(VendorId)) == len(VENDOR_IDS) for request in requests)


def test_the_ike_sa_is_rekeyed_and_the_log_in_repeated():
    made = up(pair(gateway=BY_CERTIFICATE, credential=pki().alice, fragment_size=576))
    before = made.a.sa
    before.rekey(made.now)
    made.run()
    made.agree()
    assert made.a.sa is not before
    again = made.a.sa.reauthenticate(made.now)
    made.run(20)
    made.agree()
    assert made.a.sa is again
    assert len(made.a.inbound) == 1
    assert made.b.sa.eap_identity == b"alice@example.com"


def test_forged_fragments_delay_a_log_in_and_no_more():
    """They are not authentic one by one: somebody on the way can spoil a message, which then comes again."""
    made = pair(gateway=BY_CERTIFICATE, credential=pki().alice, fragment_size=576)
    forged = 0

    def network(datagram):
        nonlocal forged
        if datagram.octets[16] == 132 and datagram.octets[34] == 1 and forged < 2:
            forged += 1
            other = bytearray(datagram.octets)
            other[34], other[35] = 2, 1  # the first piece once more, as the second and last
            made.deliver(replace(datagram, octets=bytes(other)))
        return [0.01]

    made.network = network
    made.connect()
    made.run(60)
    assert forged == 2
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors
    made.agree()


def test_a_configuration_payload_in_the_clear_is_passed_over():
    """Cisco's peers are said to send one in IKE_SA_INIT; what it says is unknown."""

    class InTheClear:
        def sending(self, sa, message):
            if message.exchange_type != ExchangeType.IKE_SA_INIT:
                return message
            clear = Configuration(ConfigurationType.CFG_SET, (ConfigurationAttribute(Attribute(0x6000), b"?"),))
            return replace(message, payloads=(*message.payloads, clear))

        def received(self, sa, message):
            return message

    made = pair()
    spoken = dialect.client(ClientOptions())
    made.a.connection = for_client(spoken, replace(made.a.connection, interception=InTheClear()))
    up(made)
    request = messages(made, ExchangeType.IKE_SA_INIT, sent=True)[0]
    assert request.find(Configuration) is not None
