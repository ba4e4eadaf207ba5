"""What a password must be, decided without a database: faults, entropy, bands, the list."""

import itertools
import tracemalloc
from typing import Any

import pytest

from watchword.features.passwords import (
    FOUR_CLASSES,
    NIST,
    SYMBOL_AND_BREACHES,
    THREE_CLASSES,
    THREE_CLASSES_AND_BITS,
    common,
    context,
    is_common,
    password_entropy,
    password_strength,
    strength_band,
)
from watchword.features.passwords.policy import faults_of
from watchword.features.passwords.settings import PasswordSettings
from watchword.features.passwords.strength import score_of
from watchword.kernel.settings import Settings

NOTHING: dict[str, Any] = {
    "min_length": 8,
    "min_score": 0,
    "check_common": False,
    "check_context": False,
}


def codes(password: str, words: tuple[str, ...] = (), **options: Any) -> list[str]:
    settings = PasswordSettings.model_validate(options)
    found = faults_of(password, settings, field="password", words=words)
    return [fault.code.removeprefix("password_") for fault in found]


@pytest.mark.capability("S0-65", "S0-66", "S3-01")
@pytest.mark.parametrize(
    ("flag", "password", "code"),
    [
        ({"min_length": 13}, "twelve chars", "too_short"),
        ({"max_length": 64}, "x" * 65, "too_long"),
        ({"require_upper": True}, "no capitals in it", "missing_upper"),
        ({"require_lower": True}, "SHOUTING 12", "missing_lower"),
        ({"require_digit": True}, "no figures in it", "missing_digit"),
        ({"require_symbol": True}, "No symbol 1", "missing_symbol"),
        ({"min_entropy_bits": 50}, "abcabcabca", "too_guessable"),
        ({"min_score": 3}, "qwertyuiopas", "too_guessable"),
        ({"check_common": True}, "iloveyou", "common"),
        ({"check_context": True}, "at my acmecorp desk", "contains_context"),
    ],
)
def test_each_flag_adds_exactly_one_fault(flag: dict[str, Any], password: str, code: str) -> None:
    assert codes(password, ("acmecorp",), **NOTHING) == []
    assert codes(password, ("acmecorp",), **{**NOTHING, **flag}) == [code]


@pytest.mark.capability("S0-66", "S2-15", "S3-01")
def test_all_faults_come_at_once_and_each_once() -> None:
    every = {f"require_{name}": True for name in ("upper", "digit", "symbol")}
    assert codes("iloveyou", ("love",), **every, min_entropy_bits=50) == [
        "too_short",
        "missing_upper",
        "missing_digit",
        "missing_symbol",
        "common",  # and not too_guessable besides: one reason for one thing
    ]
    assert codes("acmecorpacmecorp", ("acmecorp",), min_entropy_bits=128) == [
        "contains_context",
        "too_guessable",
    ]


@pytest.mark.capability("S0-65", "S2-15", "S3-01", "S4-16", "S4-13")
@pytest.mark.parametrize(
    ("preset", "fine", "wrong"),
    [
        (
            THREE_CLASSES_AND_BITS,
            "Twelve letters1",
            {"Elevenchars": "too_short missing_digit", "nocapitals in 1": "missing_upper"},
        ),
        (FOUR_CLASSES, "Eight.c8", {"Seven.7": "too_short", "Eightch8": "missing_symbol"}),
        (
            SYMBOL_AND_BREACHES,
            "twelve-chars",
            {"twelve chars": "missing_symbol", "eleven-char": "too_short"},
        ),
        (
            THREE_CLASSES,
            "Eightch8",
            {"eightch8": "missing_upper", "EIGHTCH8": "missing_lower", "Eightchr": "missing_digit"},
        ),
        (NIST, "vkqzmfhwtgepbna", {"vkqzmfhwtgepbn": "too_short"}),
        (
            {},
            "vkqzmfhwtgep",
            {"vkqzmfhwtge": "too_short", "aaaaaaaaaaaaaaa": "too_guessable", "v" * 129: "too_long"},
        ),
    ],
    ids=["S0", "S2", "S3", "S4", "NIST", "default"],
)
def test_presets_keep_what_they_are_named_for(
    preset: dict[str, Any], fine: str, wrong: dict[str, str]
) -> None:
    assert codes(fine, **preset) == []
    for password, said in wrong.items():
        found = codes(password, **preset)
        assert found[: len(said.split())] == said.split(), password


@pytest.mark.capability("S0-68", "DEF-20")
def test_the_entropy_that_is_documented_is_the_one_that_comes_out() -> None:
    assert password_entropy("") == 0
    assert password_entropy("password") == 37.6  # a blind search; below, a search that knows words
    assert password_entropy("Tr0ub4dor&3") == 72.1
    assert password_entropy("correct horse battery staple") == 164.02
    assert password_entropy("пароль") == 39.86
    for shorter, longer in itertools.pairwise(("a", "aB", "aB1", "aB1!", "aB1!é")):
        assert password_entropy(longer) > password_entropy(shorter)


@pytest.mark.capability("S0-69")
@pytest.mark.parametrize(
    ("bits", "band"),
    [
        (0, "very weak"),
        (27.99, "very weak"),
        (28, "weak"),
        (35.99, "weak"),
        (36, "fair"),
        (59.99, "fair"),
        (60, "strong"),
        (127.99, "strong"),
        (128, "very strong"),
    ],
)
def test_bands_begin_where_they_say(bits: float, band: str) -> None:
    assert strength_band(bits) == band


@pytest.mark.capability("S0-69", "DEF-20")
def test_words_and_patterns_are_very_weak_whatever_their_letters() -> None:
    for word in (
        "password",
        "administrator",
        "P@ssw0rd",
        "qwertyuiop",
        "abcdefghijklmnop",
        "a" * 90,
    ):
        found = password_strength(word)
        assert (found.band, found.score) in {("very weak", 0), ("very weak", 1)}, (word, found)
    assert password_strength("").band == "very weak"
    good = password_strength("correct horse battery staple")
    assert (good.score, good.band) == (4, "strong")
    assert (
        password_strength("vKq9mZ2xLw7Tb4Rn8Yc5Hd1pJ3sGf6uEtA0oWiDkQvXzBnM").band == "very strong"
    )
    assert password_strength("acmecorp ada", ("acmecorp", "ada")).score < 3


@pytest.mark.capability("S0-70", "DEF-20")
@pytest.mark.standard("1: 6.2.4", "1: 6.2.12")
def test_the_list_knows_whole_passwords_and_no_parts_of_them() -> None:
    for word in ("password123", "123456", "qwerty", "letmein", "P@SSWORD", "Iloveyou", "dragon"):
        assert is_common(word), word
    for fine in (
        "administrator-of-nothing",
        "my password123 is long",
        "correct horse battery staple",
        " password123",
        "",
        "vkqzmfhwtgep",
        "\ud800",
    ):
        assert not is_common(fine), fine


@pytest.mark.capability("S0-70")
def test_the_list_is_whole_and_small() -> None:
    tracemalloc.start()
    try:
        common._listed.cache_clear()
        starts, rests = common._listed()
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert starts[-1] * 3 == len(rests)
    assert starts[-1] > 100_000
    assert kept < 1_000_000
    assert most < 8_000_000


@pytest.mark.standard("1: 6.1.2", "1: 6.2.11")
@pytest.mark.parametrize(
    ("password", "is_refused"),
    [
        ("ada.lovelace and the engine", True),
        ("the LOVELACE engine of 1843", True),
        ("countess1815 had a machine", True),
        ("her analytical-engines are loud", True),
        ("acmecorp is where i work", True),
        ("see accounts.acme.example now", True),
        ("the acme of my ambitions", True),
        ("macmerry is a village", False),  # short words count where they stand alone
        ("ada was here before", False),  # three letters stand in too much
        ("accounts receivable, twice", False),
        ("correct horse battery staple", False),
    ],
)
def test_words_around_the_user_and_the_app_are_refused(password: str, is_refused: bool) -> None:
    words = context.normal_words(
        (
            *context.words_of_app(
                client_id="acmecorp", issuer="https://accounts.acme.example", others=()
            ),
            *context.words_of_user(
                email="Ada.Lovelace@analytical-engines.example", username="Countess1815"
            ),
        )
    )
    assert context.contained(password, words) is is_refused
    assert ("contains_context" in codes(password, words)) is is_refused


def test_an_address_or_a_host_that_is_none_adds_no_words() -> None:
    assert context.normal_words(context.words_of_user(email="@", username="")) == ()
    assert context.normal_words(
        context.words_of_app(client_id="ww", issuer="http://127.0.0.1:8000")
    ) == ("127.0.0.1",)


@pytest.mark.standard("1: 6.2.9")
def test_what_is_scored_is_bounded_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    import zxcvbn_rs_py  # noqa: PLC0415

    seen: list[str] = []
    real = zxcvbn_rs_py.zxcvbn

    def watched(text: str, words: list[str]) -> Any:
        seen.append(text)
        return real(text, words)

    monkeypatch.setattr(zxcvbn_rs_py, "zxcvbn", watched)
    # Each of these letters stands for others, and all their combinations would be tried.
    score_of("4@8({[<369&#!1|0$5+7%2" * 40, enough=4)
    score_of("aaaa" * 300, enough=4)
    assert seen
    assert all(len(text) <= 24 for text in seen)
    assert all(len(set(text) & set("@({[<!|$+%")) <= 4 for text in seen)
    assert score_of("P@$$w0rd!", enough=3) < 3  # a few of them still disguise nothing
    assert score_of("a" * 40 + "vkq zmfhw tgep bnaxu", enough=3) == 4  # the end counts too


def test_half_a_surrogate_pair_is_scored_as_any_letter() -> None:
    assert codes("\ud800" * 12) == ["too_guessable"]


def test_every_setting_of_the_policy_is_described() -> None:
    assert issubclass(PasswordSettings, Settings)
    for name, each in PasswordSettings.model_fields.items():
        assert each.description, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"breach_url": "ftp://example.com/"},
        {"breach_url": "https://example.com"},
        {"breach_timeout": "2m"},
        {"breach_timeout": "0s"},
        {"breach_cache_ttl": "2d"},
        {"min_score": 5},
        {"context_words": ["abc"]},
        {"min_entropy_bits": -1},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PasswordSettings.model_validate(wrong)
