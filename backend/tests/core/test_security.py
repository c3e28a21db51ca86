"""Identifiers, keys and tokens as functions: their form, their randomness, and invalid texts."""

import re
from hashlib import sha256

import pytest
from app.core.security import (
    UNKNOWN_ACCOUNT_HASH,
    TokenKey,
    TokenSubject,
    hash_api_key,
    hash_password,
    is_id,
    new_api_key,
    new_id,
    new_timed_id,
    verify_password,
)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SAMPLES = 2000
SUBJECT = TokenSubject("usr_1", 7)

NO_IDS = [
    "",
    "key",
    "key_",
    "key_0",
    f"key_{'0' * 19}",
    f"key_{'0' * 21}",
    f"key_{'0' * 29}",
    f"key_{'0' * 31}",
    f"key_{'0' * 5000}",
    f"usr_{'0' * 20}",
    f"KEY_{'0' * 20}",
    f"key{'0' * 20}",
    f"{'0' * 20}",
    f"key_key_{'0' * 20}",
    f" key_{'0' * 20}",
    f"key_{'0' * 20}\n",
    f"key_{'0' * 19}\n",
    f"key_{'0' * 19}\0",
    f"key_{'0' * 19} ",
    f"key_{'0' * 19}A",
    f"key_{'0' * 19}i",  # a letter that is not in the alphabet
    f"key_{'0' * 19}l",
    f"key_{'0' * 19}o",
    f"key_{'0' * 19}u",
    f"key_{'0' * 19}%",
    f"key_{'0' * 19}/",
    f"key_{'0' * 19}\ud800",
    f"key_{'0' * 19}\uff10",  # a full-width digit
    f"key_{'0' * 19}\u0660",  # an Arabic digit
]


@pytest.mark.parametrize("prefix", ["usr", "key", "gen", "req"])
def test_an_id_is_its_prefix_and_100_random_bits(prefix: str) -> None:
    ids = [new_id(prefix) for _ in range(SAMPLES)]
    assert len(set(ids)) == SAMPLES
    assert all(re.fullmatch(rf"{prefix}_[{ALPHABET}]{{20}}", each) for each in ids)
    assert all(is_id(prefix, each) for each in ids)
    for place in range(-20, 0):  # 5 bits in each place: of 2,000 ids, one misses a letter once in 10^26
        assert {each[place] for each in ids} == set(ALPHABET)


def test_timed_ids_sort_by_time_and_end_with_100_random_bits() -> None:
    times = [0.0, 0.001, 1.0, 1_700_000_000.0, 1_700_000_000.001, 1_700_000_001.0, 4_102_444_800.0, 30_000_000_000.0]
    ids = [new_timed_id("gen", now=now) for now in times]
    assert ids == sorted(ids)
    assert all(re.fullmatch(rf"gen_[{ALPHABET}]{{30}}", each) and is_id("gen", each) for each in ids)
    of_one_moment = [new_timed_id("gen", now=1_700_000_000) for _ in range(SAMPLES)]
    assert len({each[:14] for each in of_one_moment}) == 1
    assert len({each[14:] for each in of_one_moment}) == SAMPLES


def test_the_time_of_an_id_is_its_milliseconds() -> None:
    digits = new_timed_id("gen", now=1_700_000_000.123)[4:14]
    assert sum(ALPHABET.index(digit) << 5 * place for place, digit in enumerate(reversed(digits))) == 1_700_000_000_123


@pytest.mark.parametrize("text", NO_IDS, ids=ascii)
def test_text_without_the_form_of_an_id_is_no_id(text: str) -> None:
    assert is_id("key", text) is False


@pytest.mark.parametrize("environment", ["live", "test"])
def test_a_key_is_128_random_bits_in_lower_case_hex(environment: str) -> None:
    keys = [new_api_key("live" if environment == "live" else "test") for _ in range(SAMPLES)]
    assert len(set(keys)) == SAMPLES
    assert all(re.fullmatch(rf"nb_{environment}_[0-9a-f]{{32}}", key) for key in keys)
    for place in range(-32, 0):
        assert {key[place] for key in keys} == set("0123456789abcdef")


def test_a_key_is_looked_up_by_the_sha256_of_its_whole_text() -> None:
    key = new_api_key("live")
    assert hash_api_key(key) == sha256(key.encode()).digest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nb_live_",
        f"nb_live_{'0' * 31}",
        f"nb_live_{'0' * 33}",
        f"nb_LIVE_{'0' * 32}",
        f"NB_LIVE_{'0' * 32}",
        f"nb_live_{'A' * 32}",
        f"nb_live_{'g' * 32}",
        f"nb_live_{'0' * 32}\n",
        f"\nnb_live_{'0' * 32}",
        f"nb_live_{'0' * 31}\0",
        f"nb_live_{'0' * 31}\uff10",
        f"nb_live_{'0' * 31}\ud800",
        f"nb_prod_{'0' * 32}",
        f"sk_live_{'0' * 32}",
    ],
    ids=ascii,
)
def test_text_without_the_form_of_a_key_is_not_hashed(text: str) -> None:
    assert hash_api_key(text) is None


@pytest.mark.usefixtures("production_hashes")
def test_a_password_matches_its_own_hash_only() -> None:
    stored = hash_password("correct horse")
    assert verify_password("correct horse", stored) == (True, None)
    assert verify_password("correct horse ", stored) == (False, None)
    assert verify_password("correct horse", UNKNOWN_ACCOUNT_HASH) == (False, None)


@pytest.mark.parametrize("stored", ["", "plain", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$x$y", "$2b$12$" + "a" * 53])
def test_a_hash_that_cannot_be_read_matches_no_password(stored: str) -> None:
    assert verify_password("plain", stored) == (False, None)


def test_a_token_is_valid_for_its_lifetime_and_never_for_more_than_an_hour() -> None:
    key = TokenKey.derive(b"s" * 32)
    minute, day = (
        key.issue(SUBJECT, now=1000, lifetime_seconds=60),
        key.issue(SUBJECT, now=1000, lifetime_seconds=86_400),
    )
    assert [key.read(minute, now=now) for now in (940, 1000, 1059.9, 1060)] == [SUBJECT, SUBJECT, SUBJECT, None]
    assert [key.read(day, now=now) for now in (4599.9, 4600)] == [SUBJECT, None]
    assert key.read(minute, now=939.9) is None, "a clock that is ahead by more than a minute is not believed"


def test_tokens_are_not_signed_with_the_secret_itself_nor_valid_under_another_one() -> None:
    token = TokenKey.derive(b"s" * 32).issue(SUBJECT, now=1000, lifetime_seconds=60)
    for other in (TokenKey.derive(b"t" * 32), TokenKey(b"s" * 32)):
        assert other.read(token, now=1000) is None


def test_reading_a_token_with_any_flipped_bit_returns_none() -> None:
    key = TokenKey.derive(b"s" * 32)
    # Several tokens, because the last character decides which flipped bits do not change the decoded bytes.
    for token in (key.issue(TokenSubject(new_id("usr"), 7), now=1000, lifetime_seconds=60) for _ in range(8)):
        places = ((place, bit) for place in range(len(token)) for bit in range(8))
        flipped = (token[:place] + chr(ord(token[place]) ^ 1 << bit) + token[place + 1 :] for place, bit in places)
        assert not [each for each in flipped if key.read(each, now=1000)]


@pytest.mark.parametrize("more", ["=", "==", "A", "\n", " ", ".", "!!!!"], ids=ascii)
def test_a_token_has_one_spelling_only(more: str) -> None:
    key = TokenKey.derive(b"s" * 32)
    token = key.issue(SUBJECT, now=1000, lifetime_seconds=60)
    assert key.read(token, now=1000) == SUBJECT
    assert [key.read(other, now=1000) for other in (token + more, more + token)] == [None, None]


@pytest.mark.parametrize(
    "text", ["", ".", "..", "...", "a.b.c", "\0", "\ud800.a.b", "\u00e9.a.b", "a" * 100_000], ids=len
)
def test_reading_any_other_text_as_a_token_returns_none_and_never_raises(text: str) -> None:
    assert TokenKey.derive(b"s" * 32).read(text, now=1000) is None
