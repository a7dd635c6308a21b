"""Who signed: one key for all spellings of a mailbox, one mailbox per key, and ids that only this system can issue."""

import itertools
import string
import traceback
from random import Random
from uuid import UUID, uuid4

import pytest
from email_validator import validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.contract import identity
from shared.contract.events import ConfirmCommand, WithdrawCommand
from shared.contract.identity import (
    InvalidEmail,
    canonical_domain,
    canonical_email,
    command_id,
    issued_here,
    new_signature_id,
    retry_signature_id,
    signer_key,
)
from shared.contract.mailboxes.providers import LATEST, VERSIONS

PEPPER = b"a pepper of a good length"
SIGNER = signer_key(PEPPER, "save-the-harbour", "sam@example.org")

FULL_WIDTH = {ord(letter): ord(letter) + 0xFEE0 for letter in string.ascii_letters + string.digits + ".@+-_"}

ATEXT = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-"
dot_atoms = st.lists(st.text(ATEXT, min_size=1, max_size=12), min_size=1, max_size=4).map(".".join)
host_names = st.lists(
    st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=9), min_size=2, max_size=4
)
plain_looking = st.tuples(
    st.one_of(dot_atoms, st.text(ATEXT + ".", min_size=1, max_size=70)),
    st.one_of(
        host_names.map(".".join), st.sampled_from(["gmail.com", "outlook.com", "sub.local", "a.invalid", "a.b1"])
    ),
).map("@".join)

# Pieces of what makes addresses hard, put together at random.
LETTERS = [
    "a",
    "A",
    "b",
    "Z",
    "0",
    "9",
    ".",
    "+",
    "-",
    "_",
    "'",
    "@",
    " ",
    "\t",
    '"',
    "(",
    ")",
    "<",
    ">",
    ",",
    ";",
    ":",
    "\\",
]
WIDE = ["＠", "。", "．", "｡", "ｇ", "Ａ", "１"]
FOREIGN = [
    "İ",
    "ı",
    "ß",
    "ẞ",
    "ς",
    "σ",
    "Σ",
    "ﬁ",
    "é",
    "e\u0301",
    "ü",
    "ǅ",
    "ϓ",
    "\u00ad",
    "\u200b",
    "\u0345",
    "\ud800",
]
WHOLE = [
    "gmail.com",
    "@gmail.com",
    "@outlook.com",
    "@pm.me",
    "@ＧＭＡＩＬ．ｃｏｍ",
    "@example.org",
    "+tag",
    ".+",
    "xn--",
]
HOSTS = ["@bücher.example", "@xn--bcher-kva.example", "@faß.example", "@ΣΑΣ.example", "@ΣΑΣ"]
pieces = st.lists(st.sampled_from(LETTERS + WIDE + FOREIGN + WHOLE + HOSTS), max_size=10).map("".join)
any_text = st.one_of(pieces, plain_looking, st.text(st.characters(exclude_categories=[]), max_size=20))


def canonical_or_none(text: str) -> str | None:
    try:
        return canonical_email(text)
    except InvalidEmail:
        return None


class TestCanonicalEmail:
    @given(any_text)
    @example("name.+tag@outlook.com")
    @example("a@gmail。com")
    def test_whatever_is_typed_it_is_an_address_or_an_invalid_email_and_never_another_error(self, text: str) -> None:
        canonical_or_none(text)

    @settings(max_examples=500)
    @given(any_text)
    @example("name.+tag@outlook.com")
    @example("i\u0307@example.org")
    @example("a@ΣΑΣ")
    @example("ẞ@faß.example")
    def test_the_canonical_form_of_a_canonical_form_is_itself(self, text: str) -> None:
        canonical = canonical_or_none(text)
        if canonical is not None:
            assert canonical_email(canonical) == canonical

    @given(plain_looking, st.randoms(use_true_random=False))
    def test_case_width_and_space_around_it_make_no_difference(self, text: str, random: Random) -> None:
        canonical = canonical_or_none(text)
        letters = [random.choice((letter.upper(), letter.lower())) for letter in text]
        mixed = [letter.translate(FULL_WIDTH) if random.random() < 0.3 else letter for letter in letters]
        assert canonical_or_none(f" \u3000{''.join(mixed)}\n") == canonical

    @pytest.mark.parametrize(
        ("spellings", "canonical"),
        [
            (
                [
                    "sam@gmail.com",
                    "S.A.M@gmail.com",
                    "sam+petition@GMail.com",
                    "sam@googlemail.com",
                    "ｓａｍ＠ｇｍａｉｌ．ｃｏｍ",
                ],
                "sam@gmail.com",
            ),
            (["s.a.m+a+b@googlemail.com", "sam@gmail。com", "sam@ｇｍａｉｌ｡com"], "sam@gmail.com"),
            (["sam@outlook.com", "Sam+news@Outlook.com", "sam+@outlook.com"], "sam@outlook.com"),
            (["robin@hotmail.co.uk", "Robin+1@HOTMAIL.co.uk"], "robin@hotmail.co.uk"),
            (["robin@outlook.de", "robin+x+y@outlook.de"], "robin@outlook.de"),
            (["robin@msn.com", "robin+@msn.com"], "robin@msn.com"),
            (["sam@proton.me", "sam@protonmail.com", "sam+x@pm.me", "sam@protonmail.ch"], "sam@proton.me"),
            (["robin@proton.me", "ro.bin@proton.me", "r-o_bin@pm.me", "ro.bin.+x@protonmail.com"], "robin@proton.me"),
            (["sam@icloud.com", "sam@me.com", "sam+x@mac.com"], "sam@icloud.com"),
            (["sam@fastmail.com", "sam+x@fastmail.com", "x@sam.fastmail.com"], "sam@fastmail.com"),
            (["x+y@SAM.fastmail.com", "x@ｓａｍ.fastmail.com"], "sam@fastmail.com"),
            (["sam@sent.com", "anything@sam.sent.com"], "sam@sent.com"),
            (["john.2009@yandex.ru", "john-2009@ya.ru", "John-2009@yandex.com"], "john-2009@yandex.ru"),
            (["sam@posteo.de", "sam@posteo.net", "sam@posteo.com"], "sam@posteo.de"),
            (["sam@runbox.com", "sam+x@runbox.no"], "sam@runbox.com"),
            (["sam@mailbox.org", "sam+x@mailbox.org"], "sam@mailbox.org"),
            (["sam@bücher.example", "SAM@BÜCHER.example", "sam@xn--bcher-kva.example", "sam@XN--BCHER-KVA.EXAMPLE"],)
            * 1
            + ("sam@xn--bcher-kva.example",),
            (["sam@bu\u0308cher.example", "sam@ｂücher。example"], "sam@xn--bcher-kva.example"),
            (["é@example.org", "e\u0301@example.org", "É@example.org"], "é@example.org"),
        ],
    )
    def test_all_spellings_that_reach_one_mailbox_become_one(self, spellings: list[str], canonical: str) -> None:
        assert {canonical_email(spelling) for spelling in spellings} == {canonical}

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("sam@example.org", "s.am@example.org"),  # this provider may tell them apart
            ("sam@example.org", "sam+tag@example.org"),
            ("s.am@outlook.com", "sam@outlook.com"),  # only gmail ignores dots
            ("sam@outlook.com", "sam@hotmail.com"),  # two mailboxes of one provider
            ("sam@gmail.com", "sam@mail.gmail.com"),  # not the provider's own domain
            ("sam-tag@gmail.com", "sam@gmail.com"),
            ("s_am@gmail.com", "sam@gmail.com"),
            ("robin@outlook.com", "robin@outlook.de"),  # the name under the other domain may be another person's
            ("sam@fastmail.com", "sam@fastmail.fm"),
            ("x@sam.outlook.com", "sam@outlook.com"),  # only Fastmail has addresses in subdomains
            ("x@sa-m.fastmail.com", "sa-m@fastmail.com"),  # it may stand for sa_m
            ("x@mail.sam.fastmail.com", "sam@fastmail.com"),
            ("sam@fastmail.com.example", "sam@fastmail.com"),
            ("john.2009@yandex.ru", "john2009@yandex.ru"),  # a dot is a hyphen there, and not nothing
            ("sam+x@yandex.ru", "sam@yandex.ru"),  # where plus tags are not documented they are kept
            ("sam+x@posteo.de", "sam@posteo.de"),
            ("sam-x@yahoo.com", "sam@yahoo.com"),
            ("sam+x@gmx.net", "sam@gmx.net"),
            ("s.am@mailbox.org", "sam@mailbox.org"),
            ("ss@example.org", "ß@example.org"),
            ("sam@fass.example", "sam@faß.example"),
        ],
    )
    def test_two_mailboxes_never_become_one(self, one: str, other: str) -> None:
        assert canonical_email(one) != canonical_email(other)

    @settings(max_examples=300)
    @given(dot_atoms, st.sampled_from(sorted(VERSIONS[LATEST])), st.sampled_from(sorted(VERSIONS)), st.booleans())
    def test_at_every_provider_and_by_every_version_the_canonical_form_is_a_fixed_point_that_mail_can_be_sent_to(
        self, local: str, domain: str, rules: int, below: bool
    ) -> None:
        try:
            canonical = canonical_email(f"{local}@{'sam.' * below}{domain}", rules)
        except InvalidEmail:
            return
        assert canonical_email(canonical, rules) == canonical
        assert identity._PLAIN_EMAIL.match(canonical)

    def test_a_petition_of_the_first_version_keeps_its_rules(self) -> None:
        assert canonical_email("ro.bin+x@proton.me", 1) == "ro.bin@proton.me"
        assert canonical_email("robin+1@hotmail.co.uk", 1) == "robin+1@hotmail.co.uk"
        assert canonical_email("x@sam.fastmail.com", 1) == "x@sam.fastmail.com"
        assert canonical_email("s.am+x@googlemail.com", 1) == "sam@gmail.com"

    @given(plain_looking)
    @example("a@host.local")
    @example("a@host.b1")
    @example(f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 10}.org")
    def test_the_short_way_accepts_nothing_that_email_validator_refuses(self, text: str) -> None:
        if identity._PLAIN_EMAIL.match(text.lower()):
            validate_email(text, check_deliverability=False, test_environment=True)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "sam",
            "@",
            "sam@",
            "@example.org",
            "sam@example",
            "sam@localhost",
            "sam@printer.local",
            "sam@nowhere.invalid",
            "sam@@example.org",
            "sam@x@example.org",
            "sam@-example.org",
            "sam@exam ple.org",
            "sam@example..org",
            "sam@example.org.",
            ".sam@example.org",
            "sam.@example.org",
            "s..am@example.org",
            '"sam"@example.org',
            '"sam"@gmail.com',
            "sam(home)@gmail.com",
            "sam@gmail.com(home)",
            "sam@gmail.com.",
            "-._@proton.me",
            "+x@hotmail.fr",
            "Sam <sam@example.org>",
            "sam@[192.0.2.1]",
            "sam@192.0.2.1",
            "+tag@gmail.com",
            "...@gmail.com",
            "sam.+tag@icloud.com",
            "sam\u00adx@example.org",
            "sam\u200bx@example.org",
            "sam\x00@example.org",
            "sam@xn--a.example",
            "sam@ab--cd.example",
            "\ud800@example.org",
            "a@" + "b" * 64 + ".org",
            "a@" + "b." * 130 + "org",
        ],
    )
    def test_what_mail_cannot_be_sent_to_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidEmail):
            canonical_email(text)

    @given(st.text(st.characters(exclude_categories=[]), min_size=3, max_size=30), st.sampled_from(["", "@", "@x.org"]))
    @example("secret:word", "@x.org")
    @example("secretword", "@bad_domain.org")
    @example("secretword", "@xn--secretword.org")
    def test_the_message_never_holds_what_was_typed(self, text: str, domain: str) -> None:
        try:
            canonical_email(f"canary{text}canary{domain}")
        except InvalidEmail:
            assert "canary" not in traceback.format_exc().rpartition("InvalidEmail: ")[2]
            assert "During handling" not in traceback.format_exc(), "the validator's own message would be printed"


class TestCanonicalDomain:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("googlemail.com", "GMAIL.com."),
            ("me.com", "icloud.com"),
            ("pm.me", "protonmail.ch"),
            ("ya.ru", "yandex.kz"),
            ("posteo.net", "posteo.de"),
            ("bücher.example", "XN--BCHER-KVA.example"),
        ],
    )
    def test_interchangeable_domains_are_one(self, one: str, other: str) -> None:
        assert canonical_domain(one) == canonical_domain(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [("hotmail.com", "outlook.com"), ("fastmail.com", "fastmail.fm"), ("sam.fastmail.com", "fastmail.com")],
    )
    def test_domains_under_which_a_name_is_somebody_elses_are_not(self, one: str, other: str) -> None:
        assert canonical_domain(one) != canonical_domain(other)


class TestSignerKey:
    def test_it_is_the_same_for_the_same_petition_signer_and_pepper(self) -> None:
        assert signer_key(PEPPER, "save-the-harbour", "sam@example.org") == SIGNER

    def test_another_petition_signer_or_pepper_gives_another_key(self) -> None:
        keys = {
            SIGNER,
            signer_key(PEPPER, "save-the-trees", "sam@example.org"),
            signer_key(PEPPER, "save-the-harbour", "suzie@example.org"),
            signer_key(b"another pepper of good length", "save-the-harbour", "sam@example.org"),
        }
        assert len(keys) == 4

    def test_the_border_between_petition_and_address_is_part_of_it(self) -> None:
        assert signer_key(PEPPER, "ab", "c@example.org") != signer_key(PEPPER, "a", "bc@example.org")

    @given(st.text(max_size=30))
    def test_any_canonical_text_has_a_key(self, canonical: str) -> None:
        assert signer_key(PEPPER, "p", canonical).int > 0


class TestSignatureIds:
    def test_a_retry_with_the_same_key_by_the_same_signer_is_the_same_signature(self) -> None:
        assert retry_signature_id(PEPPER, SIGNER, "key") == retry_signature_id(PEPPER, SIGNER, "key")

    def test_another_key_signer_or_pepper_is_another_signature(self) -> None:
        other = signer_key(PEPPER, "save-the-harbour", "suzie@example.org")
        ids = {
            retry_signature_id(PEPPER, SIGNER, "key"),
            retry_signature_id(PEPPER, SIGNER, "key 2"),
            retry_signature_id(PEPPER, other, "key"),
            retry_signature_id(b"another pepper of good length", SIGNER, "key"),
        }
        assert len(ids) == 4

    def test_fresh_ids_differ_and_rise_with_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = itertools.count(1_790_000_000_000_000_000, 1_000_000)
        monkeypatch.setattr("shared.contract.identity.time.time_ns", lambda: next(clock))
        ids = [new_signature_id(PEPPER) for _ in range(200)]
        assert ids == sorted(ids, key=lambda signature: signature.bytes)
        assert len(set(ids)) == 200

    def test_two_ids_of_one_moment_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shared.contract.identity.time.time_ns", lambda: 1_790_000_000_000_000_000)
        assert len({new_signature_id(PEPPER) for _ in range(1000)}) == 1000

    def test_ids_of_this_system_are_known_as_such(self) -> None:
        assert issued_here(PEPPER, new_signature_id(PEPPER))
        assert issued_here(PEPPER, retry_signature_id(PEPPER, SIGNER, "key"))

    @given(st.uuids())
    def test_any_other_id_is_refused(self, foreign: UUID) -> None:
        assert not issued_here(PEPPER, foreign)

    @given(st.integers(0, 127))
    def test_an_id_with_one_bit_changed_is_refused(self, bit: int) -> None:
        issued = new_signature_id(PEPPER)
        assert not issued_here(PEPPER, UUID(int=issued.int ^ (1 << bit)))

    def test_an_id_of_a_system_with_another_pepper_is_refused(self) -> None:
        assert not issued_here(PEPPER, new_signature_id(b"another pepper of good length"))


class TestCommandId:
    def test_a_repeated_command_is_a_replay_and_another_command_is_not(self) -> None:
        signature = uuid4()
        assert command_id(signature, ConfirmCommand.TYPE) == command_id(signature, ConfirmCommand.TYPE)
        ids = {
            signature,
            command_id(signature, ConfirmCommand.TYPE),
            command_id(signature, WithdrawCommand.TYPE),
            command_id(uuid4(), ConfirmCommand.TYPE),
        }
        assert len(ids) == 4
