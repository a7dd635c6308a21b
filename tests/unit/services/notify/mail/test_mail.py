"""The content and recipients of mails, and that no text becomes a header or HTML."""

import email
import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.deliveries import Claim, Delivery, delivery_id, one_line
from services.notify.mail.letter import Mail, MailWriter, Unmailable, parse_mailbox
from shared.contract.identity import InvalidEmail
from shared.contract.mail_address import wire_address

WRITER = MailWriter(mail_from="Groundswell <petitions@groundswell.example>", pages_url="https://pages.example")
REACHED = datetime(2026, 11, 22, 10, 42, tzinfo=UTC)


def claim(folded: tuple[int, ...] = (), **changes: object) -> Claim:
    values: dict[str, object] = {
        "delivery_id": delivery_id("night-ferry", 5000, "council"),
        "petition_id": "night-ferry",
        "threshold": 5000,
        "target_id": "council",
        "petition_title": "Keep the night ferry",
        "organisation_name": "Friends of the Harbour",
        "target_name": "The Harbour Council",
        "target_kind": "body",
        "email": "council@harbour.example",
        "count": 5034,
        "reached_at": REACHED,
    }
    delivery = Delivery(**{**values, **changes})  # type: ignore[arg-type]
    return Claim(
        delivery=delivery, folded=folded, chosen_at=REACHED, attempts=0, deferred_for=timedelta(), taken_over=False
    )


def read(mail: Mail) -> EmailMessage:
    return email.message_from_bytes(mail.content, policy=email.policy.default)


def text_of(mail: Mail) -> str:
    """The text part, its lines joined."""
    part = read(mail).get_body(("plain",))
    assert part is not None
    return " ".join(part.get_content().split())


class Words(HTMLParser):
    """What a reader of the HTML sees, and the tags and links it is made of."""

    def __init__(self, mail: Mail) -> None:
        super().__init__()
        self.seen, self.tags, self.links = "", set[str](), list[str | None]()
        part = read(mail).get_body(("html",))
        assert part is not None
        self.feed(part.get_content())
        self.seen = " ".join(self.seen.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.seen += data


def test_both_parts_say_who_what_how_many_where_and_why() -> None:
    mail = WRITER.write(claim())

    for words in (text_of(mail), Words(mail).seen):
        for expected in (
            "To The Harbour Council",
            "Keep the night ferry",
            "5,000",
            "5,034 people supported it",
            "22 November 2026 at 10:42 UTC",
            "Friends of the Harbour started the petition",
            "https://pages.example/p/night-ferry",
            "Why you receive this: Friends of the Harbour named The Harbour Council",
            "Groundswell counts the signatures",
        ):
            assert expected in words
    assert Words(mail).links == ["https://pages.example/p/night-ferry"]


def test_a_person_is_greeted_and_a_body_addressed() -> None:
    assert "Dear Harbour Master," in text_of(
        WRITER.write(claim(target_kind="person", target_name="The Harbour Master"))
    )
    assert "Dear" not in text_of(WRITER.write(claim()))


def test_a_mail_about_several_milestones_names_them_all() -> None:
    mail = WRITER.write(claim(folded=(2500, 1000)))

    assert read(mail)["X-Groundswell-Milestones"] == "1000, 2500, 5000"
    assert "On the way it passed 1,000 and 2,500. This one message stands for all" in text_of(mail)
    assert "On the way it passed 1,000 and 2,500. This one message stands for all" in Words(mail).seen


@pytest.mark.parametrize(
    ("threshold", "words"), [(1, "1 supporter"), (2, "2 supporters"), (21, "21 supporters"), (1000, "1,000 supporters")]
)
def test_one_supporter_is_one_and_thousands_have_their_commas(threshold: int, words: str) -> None:
    mail = WRITER.write(claim(threshold=threshold, count=threshold))

    assert read(mail)["Subject"] == f"{words}: Keep the night ferry"
    assert f"has reached {words}." in text_of(mail)
    assert f"has reached {words}." in Words(mail).seen.replace(" .", ".")
    assert Words(mail).seen.startswith(f"{words}: Keep the night ferry")


def test_the_first_supporter_is_called_so() -> None:
    alone, two = WRITER.write(claim(threshold=1, count=1)), WRITER.write(claim(threshold=1, count=2))

    for words in (text_of(alone), Words(alone).seen):
        assert "The first supporter was counted on 22 November 2026 at 10:42 UTC." in words
    assert "2 people supported it" in text_of(two)


def test_a_mail_about_two_milestones_stands_for_both() -> None:
    mail = WRITER.write(claim(threshold=2, folded=(1,)))

    for words in (text_of(mail), Words(mail).seen):
        assert "On the way it passed 1. This one message stands for both milestones." in words


def test_a_title_from_right_to_left_keeps_its_punctuation_and_leaves_ours_alone() -> None:
    title = "أنقذوا العبّارة الليلية!"
    mail = WRITER.write(claim(petition_title=title, organisation_name="أصدقاء الميناء", target_name="مجلس الميناء"))
    isolated = f"\u2068{title}\u2069"

    assert read(mail)["Subject"] == f"5,000 supporters: {isolated}"
    assert f'The petition "{isolated}", which' in text_of(mail)
    assert "\u2068مجلس الميناء\u2069" in text_of(mail)
    # In HTML elements with a `dir` isolate text; a title cannot contain elements.
    assert "\u2068" not in Words(mail).seen.removeprefix(f"5,000 supporters: {isolated}")
    part = read(mail).get_body(("html",))
    assert part is not None
    assert f'<strong dir="auto">{title}</strong>' in part.get_content()
    assert mail.content.isascii()


def test_a_title_from_left_to_right_gets_no_invisible_characters() -> None:
    mail = WRITER.write(claim(petition_title="Überfähre — 夜の船"))

    assert read(mail)["Subject"] == "5,000 supporters: Überfähre — 夜の船"
    assert not {"\u2068", "\u2069"} & set(text_of(mail))


def test_a_title_of_one_long_word_is_folded_and_read_as_it_was() -> None:
    mail = WRITER.write(claim(petition_title="Fährverbindung" * 8))

    header = mail.content.partition(b"Date:")[0]
    assert max(len(line) for line in header.split(b"\r\n")) <= 78  # RFC 5322 section 2.1.1
    assert read(mail)["Subject"] == "5,000 supporters: " + "Fährverbindung" * 8


def test_a_mail_about_one_milestone_speaks_of_no_others() -> None:
    mail = WRITER.write(claim(count=5000))

    assert read(mail)["X-Groundswell-Milestones"] == "5000"
    assert "On the way" not in text_of(mail)
    assert "The supporter who made it 5,000 was counted on 22 November 2026" in text_of(mail)


def test_the_headers_name_sender_recipient_petition_and_the_program() -> None:
    message = read(WRITER.write(claim()))

    assert str(message["From"]) == "Groundswell <petitions@groundswell.example>"
    assert str(message["To"]) == "The Harbour Council <council@harbour.example>"
    assert message["Subject"] == "5,000 supporters: Keep the night ferry"
    assert message["Message-ID"] == f"<{delivery_id('night-ferry', 5000, 'council')}@groundswell.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Groundswell-Petition"] == "night-ferry"
    assert message["Date"].datetime == REACHED


def test_the_same_claim_is_the_same_mail_byte_for_byte() -> None:
    assert WRITER.write(claim()) == WRITER.write(claim())


def test_everything_on_the_wire_is_ascii_in_lines_that_every_server_takes() -> None:
    mail = WRITER.write(claim(petition_title="Überfähre — 夜の船 " + "weiter " * 40, target_name="Zoë, Ävelyn & Söhne"))

    assert mail.content.isascii()
    assert max(len(line) for line in mail.content.split(b"\r\n")) <= 998  # RFC 5322 section 2.1.1
    assert read(mail)["Subject"].startswith("5,000 supporters: Überfähre — 夜の船 weiter")
    assert len(read(mail)["Subject"]) < 150


def test_html_in_a_title_stays_text() -> None:
    mail = WRITER.write(claim(petition_title='<script>alert("1")</script> & {{ 7 * 7 }}'))

    assert 'The petition <script>alert("1")</script> & {{ 7 * 7 }}, which' in Words(mail).seen
    assert "script" not in Words(mail).tags


def test_a_long_name_with_commas_is_still_one_address() -> None:
    name = 'The Committee on Transport, Harbours, Ferries, and All Other Matters of the "Regional" Parliament'
    message = read(WRITER.write(claim(target_name=name)))

    (to,) = message["To"].addresses
    # Python's parser adds a space between two encoded words.
    assert to.display_name.split() == name.split()
    assert to.addr_spec == "council@harbour.example"


hostile = st.text(
    st.one_of(st.sampled_from('\r\n,;:<>"@\\()[]= ?\u2028\u202eéß夜'), st.characters(exclude_categories=["Cs"])),
    min_size=1,
)


@settings(deadline=None)
@given(title=hostile, organisation=hostile, target=hostile)
def test_whatever_a_petition_is_called_its_mail_goes_to_its_target_only(
    title: str, organisation: str, target: str
) -> None:
    names = [one_line(words) or "nothing" for words in (title, organisation, target)]
    mail = WRITER.write(claim(petition_title=names[0], organisation_name=names[1], target_name=names[2]))

    message = read(mail)
    assert set(message.keys()) == set(read(WRITER.write(claim())).keys()), "no header more, none less"
    assert [address.addr_spec for address in message["To"].addresses] == ["council@harbour.example"]
    assert "".join(message["To"].addresses[0].display_name.split()) == "".join(names[2].split())
    assert message["Subject"].startswith("5,000 supporters: ")
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert Words(mail).links == ["https://pages.example/p/night-ferry"]
    assert mail.content.isascii()


def test_a_sender_with_a_very_long_domain_keeps_its_message_id_whole() -> None:
    domain = ".".join(["groundswell"] * 8) + ".example"
    mail = MailWriter(mail_from=f"petitions@{domain}", pages_url="https://pages.example").write(claim())

    assert read(mail)["Message-ID"] == f"<{claim().delivery.delivery_id}@{domain}>"
    assert f"{claim().delivery.delivery_id}@{domain}>".encode() in mail.content


# -------------------------------------------------------------------------------------------------------------- addresses


def test_an_international_domain_goes_over_the_wire_as_a_labels() -> None:
    mail = WRITER.write(claim(email="rat@bücher.example"))

    assert mail.recipient == "rat@xn--bcher-kva.example"
    assert not mail.utf8
    assert mail.content.isascii()


def test_an_international_local_part_needs_smtputf8() -> None:
    mail = WRITER.write(claim(email="rät@bücher.example"))

    assert mail.recipient == "rät@bücher.example"
    assert mail.utf8
    assert "rät@bücher.example" in mail.content.decode()


@pytest.mark.parametrize(
    "address",
    [
        "no address",
        "council@harbour.example\r\nRCPT TO:<all@harbour.example>",
        "council@harbour.example>,<all@harbour.example",
        "council@harbour.example, all@harbour.example",
        "Council <council@harbour.example>",
        "council@\ufffd",
        "@",
    ],
)
def test_what_is_no_address_is_never_sent_to(address: str) -> None:
    with pytest.raises(Unmailable) as refusal:
        WRITER.write(claim(email=address))
    assert "harbour" not in str(refusal.value), "the reason is logged, the address is not"


@settings(deadline=None)
@given(st.text())
def test_an_address_that_is_taken_has_nothing_that_ends_an_smtp_command(text: str) -> None:
    try:
        address = wire_address(text)
    except InvalidEmail:
        return
    assert not set(address) & set(' \r\n\t<>"')
    assert address.count("@") == 1


def test_a_sender_is_an_address_with_or_without_a_name() -> None:
    assert parse_mailbox("petitions@groundswell.example").name == ""
    named = parse_mailbox("The Petition Desk <desk@bücher.example>")
    assert (named.name, named.address, named.domain) == (
        "The Petition Desk",
        "desk@xn--bcher-kva.example",
        "xn--bcher-kva.example",
    )


@pytest.mark.parametrize("text", ["", "desk", "desk@", "a@one.example, b@two.example", "dësk@groundswell.example"])
def test_a_sender_that_every_server_would_refuse_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_mailbox(text)
