"""The names of files that are not written as plain text."""

import pytest

from app.api.file_names import filename_of


def named(*, plain: str | None = None, extended: str | None = None, key: str = "filename*") -> str | None:
    parameters = [b'form-data; name="file"']
    if plain is not None:
        parameters.append(b'filename="' + plain.encode() + b'"')
    if extended is not None:
        parameters.append(f"{key}={extended}".encode())
    return filename_of(b"; ".join(parameters), None if plain is None else plain.encode())


class TestExtended:
    @pytest.mark.parametrize(
        ("extended", "name"),
        [
            ("UTF-8''%e4%b8%83.png", "七.png"),
            ("utf-8'en'seven%20one.png", "seven one.png"),
            ("iso-8859-1''sept%E9.png", "septé.png"),
            ("windows-1252''%80.png", "€.png"),
            ("\"UTF-8''%E4%B8%83.png\"", "七.png"),
            ("utf-8''it's.png", "it's.png"),
        ],
    )
    def test_it_is_the_name_where_there_is_no_plain_one(self, extended: str, name: str) -> None:
        assert named(extended=extended) == name
        assert named(plain="", extended=extended) == name
        assert named(extended=extended, key="FileName*") == name

    def test_it_is_the_name_where_the_plain_one_is_an_encoded_word(self) -> None:
        assert named(plain="=?utf-8?Q?eight.png?=", extended="UTF-8''seven.png") == "seven.png"

    def test_a_plain_name_comes_before_it(self) -> None:
        assert named(plain="plain.png", extended="UTF-8''extended.png") == "plain.png"

    def test_what_stands_in_a_quoted_name_is_none(self) -> None:
        assert filename_of(b"form-data; name=\"a; filename*=UTF-8''b.png\"", None) is None

    @pytest.mark.parametrize(
        "extended", ["", "seven.png", "utf-8'seven.png", "''seven.png", "none''a", "idna''a", "unicode_escape''a"]
    )
    def test_what_cannot_be_read_is_no_name(self, extended: str) -> None:
        assert named(extended=extended) is None
        assert named(plain="=?utf-8?Q?seven?=", extended=extended) == "seven"

    @pytest.mark.parametrize(
        ("extended", "name"),
        [
            ("UTF-8''..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
            ("UTF-8''a%00%0D%0Ab%1b", "a\x00\r\nb\x1b"),
            ("UTF-8''%ff%zz%", "\ufffd%zz%"),
            ("UTF-8''" + "%61" * 1000, "a" * 1000),
        ],
    )
    def test_a_hostile_one_is_only_a_text(self, extended: str, name: str) -> None:
        assert named(extended=extended) == name


class TestEncodedWords:
    @pytest.mark.parametrize(
        ("plain", "name"),
        [
            ("=?utf-8?B?5LiDLnBuZw==?=", "七.png"),
            ("=?UTF-8?q?sept_=C3=A9.png?=", "sept é.png"),
            ("=?utf-8?Q?a?= =?iso-8859-1?Q?=E9.png?=", "aé.png"),
            ("=?gb2312?B?xt8ucG5n?=", "七.png"),
        ],
    )
    def test_they_are_read(self, plain: str, name: str) -> None:
        assert named(plain=plain) == name

    @pytest.mark.parametrize(
        "plain",
        [
            "=?",
            "=?utf-8?B?a?=",
            "=?utf-8?X?a?=",
            "=?utf-8?Q?a?=.png",
            "=?none?Q?a?=",
            "=?iso-8859-99?Q?a?=",
            "=?rot13?Q?a?=",
            "=?utf-8?Q??=",
            "a=?utf-8?Q?b?=",
            "=?" * 1000,
        ],
    )
    def test_what_only_looks_like_some_is_a_plain_name(self, plain: str) -> None:
        assert named(plain=plain) == plain


def test_a_name_that_is_no_utf8_is_replaced_not_refused() -> None:
    assert filename_of(b'form-data; name="file"; filename="sept\xe9.png"', b"sept\xe9.png") == "sept\ufffd.png"


def test_a_part_without_a_name_has_none() -> None:
    assert filename_of(b'form-data; name="file"', None) is None
    assert filename_of(b'form-data; name="file"; filename=""', b"") is None
