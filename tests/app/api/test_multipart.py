"""The files of a body: the quick way for plain forms, python-multipart for all others, and that the two agree."""

import asyncio
import random
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from starlette.types import Message, Receive

from app.api import multipart as upload
from app.api.multipart import File, files_in, read_body
from app.http.disconnect import ClientDisconnect
from app.http.problems import Problem
from tests.support.images import encoded, picture

BOUNDARY = b"the-boundary"
FORM = b"multipart/form-data; boundary=" + BOUNDARY


def part(
    data: bytes = b"image",
    *,
    name: bytes = b"file",
    filename: bytes | None = b"seven.png",
    kind: bytes | None = b"image/png",
) -> bytes:
    head = b'Content-Disposition: form-data; name="' + name + b'"'
    head += b"" if filename is None else b'; filename="' + filename + b'"'
    head += b"" if kind is None else b"\r\nContent-Type: " + kind
    return head + b"\r\n\r\n" + data


def form(*parts: bytes, boundary: bytes = BOUNDARY, end: bytes = b"--\r\n") -> bytes:
    delimiter = b"--" + boundary
    return b"".join(delimiter + b"\r\n" + each + b"\r\n" for each in parts) + delimiter + end


def files(body: bytes, content_type: bytes = FORM, *, max_files: int = 32) -> list[File]:
    return files_in(body, content_type, max_files=max_files)


def problem(body: bytes, content_type: bytes = FORM, *, max_files: int = 32) -> Problem:
    with pytest.raises(Problem) as caught:
        files(body, content_type, max_files=max_files)
    return caught.value


def code(body: bytes, content_type: bytes = FORM, *, max_files: int = 32) -> str:
    return problem(body, content_type, max_files=max_files).code


IMAGES = {kind: encoded(picture(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")}
PNG = IMAGES["PNG"]


class TestFiles:
    def test_a_raw_body_is_one_file_without_a_name(self) -> None:
        assert files(b"image", b"image/png") == [File(None, b"image")]
        assert files(b"image", b"application/octet-stream") == [File(None, b"image")]

    def test_the_form_of_curl_is_one_file(self) -> None:
        content_type = b"multipart/form-data; boundary=------------------------d74496d66958873e"
        boundary = content_type.partition(b"=")[2]
        assert files(form(part(), boundary=boundary), content_type) == [File("seven.png", b"image")]

    def test_files_come_in_their_order(self) -> None:
        body = form(part(b"1", filename=b"a"), part(b"2", filename=b"b"), part(b"3", filename=b"a"))
        assert files(body) == [File("a", b"1"), File("b", b"2"), File("a", b"3")]

    def test_fields_of_other_names_are_passed_over(self) -> None:
        other = part(b"token", name=b"csrf", filename=None, kind=None)
        picture = part(b"other", name=b"picture")
        assert files(form(other, part(), picture)) == [File("seven.png", b"image")]

    def test_a_field_named_file_without_a_file_name_counts(self) -> None:
        assert files(form(part(filename=None))) == [File(None, b"image")]

    def test_the_empty_part_of_a_form_in_which_nothing_was_picked_is_no_file(self) -> None:
        assert code(form(part(b"", filename=b"", kind=b"application/octet-stream"))) == "no_file"

    def test_an_empty_file_with_a_name_is_a_file(self) -> None:
        assert files(form(part(b""))) == [File("seven.png", b"")]

    def test_a_form_without_files_has_no_file(self) -> None:
        assert code(form()) == "no_file"

    @pytest.mark.parametrize("content_type", [b"image/png", b"", b"text/plain", b"application/json"])
    def test_an_empty_body_is_called_empty_whatever_its_type(self, content_type: bytes) -> None:
        refused = problem(b"", content_type)
        assert refused.code == "no_file"
        assert "the body is empty" in refused.detail

    @pytest.mark.parametrize("name", [b"FILE", b"File", b"file[]", b"files", b" file", b"file ", b"", b"data", b"\xe4"])
    def test_a_part_that_is_named_file_to_the_letter_comes_before_all_others(self, name: bytes) -> None:
        assert files(form(part(b"other", name=name), part())) == [File("seven.png", b"image")]

    def test_the_names_of_headers_and_parameters_count_in_any_case(self) -> None:
        head = b'CONTENT-disposition: Form-Data; NAME="file"; FileName="seven.png"\r\n\r\n'
        assert files(form(head + b"image")) == [File("seven.png", b"image")]

    def test_a_file_name_in_utf8_is_read(self) -> None:
        assert files(form(part(filename="siebenerβ 七.png".encode())))[0].filename == "siebenerβ 七.png"

    def test_a_file_name_that_is_no_utf8_is_replaced_not_refused(self) -> None:
        assert files(form(part(filename=b"sept\xe9.png")))[0].filename == "sept\ufffd.png"

    def test_quotes_in_a_file_name_are_kept(self) -> None:
        assert files(form(part(filename=rb"a \"seven\".png")))[0].filename == 'a "seven".png'

    def test_a_content_that_looks_like_a_boundary_is_content(self) -> None:
        data = b"\r\n--the-boundaryX\r\n--the-bound\r\n-the-boundary--\r\n\r\n--the-boundar"
        assert files(form(part(data))) == [File("seven.png", data)]

    def test_more_files_than_allowed_are_refused_whole(self) -> None:
        body = form(part(), part(), part())
        assert len(files(body, max_files=3)) == 3
        assert code(body, max_files=2) == "too_many_files"

    def test_a_form_of_very_many_parts_is_refused_before_all_of_them_are_read(self) -> None:
        parts = [part(b"", name=b"x", filename=None, kind=None)] * 101
        with pytest.raises(Problem) as caught:
            files(form(*parts))
        assert caught.value.code == "bad_multipart"
        assert "more than 100 parts" in caught.value.detail
        assert code(form(*parts[1:])) == "no_file"


class TestOtherNames:
    """The names that people give to the one field of a form when they have not read what it is called."""

    @pytest.mark.parametrize(
        "name", [b"data", b"image", b"files[]", b"images", b"upload", b"File", b"", "画像".encode()]
    )
    def test_files_that_share_one_other_name_are_taken_in_their_order(self, name: bytes) -> None:
        body = form(part(b"1", name=name, filename=b"a"), part(b"2", name=name, filename=b"b"))
        assert files(body) == [File("a", b"1"), File("b", b"2")]

    def test_fields_that_hold_no_file_are_passed_over(self) -> None:
        fields = [part(b"BMW", name=b"brand", filename=None, kind=None), part(b"", name=b"empty", filename=b"")]
        assert files(form(*fields, part(name=b"image"))) == [File("seven.png", b"image")]

    def test_files_of_different_names_are_refused_and_the_names_said(self) -> None:
        refused = problem(form(part(name=b"left"), part(name=b"right"), part(name=b"left")))
        assert refused.code == "no_file"
        assert refused.detail.endswith("different names: 'left', 'right'; name all of them 'file'")

    @pytest.mark.parametrize("kind", IMAGES)
    def test_an_image_without_a_file_name_is_a_file(self, kind: str) -> None:
        body = form(part(IMAGES[kind], name=b"data", filename=None, kind=None))
        assert files(body) == [File(None, IMAGES[kind])]

    def test_one_without_a_file_name_beside_a_file_of_another_name_is_one_too_many(self) -> None:
        assert code(form(part(PNG, name=b"thumbnail", filename=None), part(PNG, name=b"image"))) == "no_file"

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"seven.png", "name of a file"),
            (b"@/home/me/seven.png", "name of a file"),
            (b64encode(PNG), "base64"),
            (b"data:image/png;base64," + b64encode(PNG), "data: URL"),
            (b"7", "no file that is not empty (fields: 'image')"),
        ],
    )
    def test_a_field_of_text_is_no_file_and_its_text_is_called_what_it_is(self, data: bytes, said: str) -> None:
        refused = problem(form(part(data, name=b"image", filename=None, kind=None)))
        assert refused.code == "no_file"
        assert said in refused.detail

    def test_a_part_that_is_named_file_and_empty_leaves_room_for_another_name(self) -> None:
        body = form(part(b"", filename=b""), part(name=b"image"))
        assert files(body) == [File("seven.png", b"image")]

    def test_as_many_are_allowed_as_of_the_usual_name(self) -> None:
        body = form(*[part(name=b"images")] * 3)
        assert len(files(body, max_files=3)) == 3
        assert code(body, max_files=2) == "too_many_files"


class TestBytesOfAnyType:
    """The bytes are trusted, and not what a client says of them."""

    @pytest.mark.parametrize("kind", IMAGES)
    @pytest.mark.parametrize(
        "content_type",
        [
            b"",
            b"application/x-www-form-urlencoded",
            b"binary/octet-stream",
            b"application/binary",
            b"text/plain; charset=utf-8",
            b"application/json",
            b"multipart/form-data",
            b"multipart/form-data; boundary=never-seen",
            b"video/mp4",
            b";image/png",
            b"\xff",
            b"IMAGE/JPEG",
        ],
    )
    def test_a_body_that_begins_as_an_image_is_one(self, kind: str, content_type: bytes) -> None:
        assert files(IMAGES[kind], content_type) == [File(None, IMAGES[kind])]

    @pytest.mark.parametrize("content_type", [b"", b"*/*", b"binary/octet-stream", b"application/binary", b"image/x"])
    def test_where_no_type_is_claimed_the_decoder_says_what_is_wrong(self, content_type: bytes) -> None:
        assert files(b"no image", content_type) == [File(None, b"no image")]

    @pytest.mark.parametrize(
        "content_type", [b"text/plain", b"application/json", b"multipart/mixed", b"imag/png", b"\xff"]
    )
    @pytest.mark.parametrize("body", [b"no image", b"BMW", b"II*", b"GIF89a without an end"])
    def test_what_claims_to_be_no_image_and_is_none_is_refused(self, content_type: bytes, body: bytes) -> None:
        refused = problem(body, content_type)
        assert refused.code == "unsupported_content_type"
        assert content_type.decode("latin-1") in refused.detail
        assert "multipart/form-data" in refused.detail

    @pytest.mark.parametrize(
        ("body", "name"), [(b"%PDF-1.7", "PDF"), (b"\0\0\0\x18ftypheic", "HEIF"), (b"8BPS", "Photo")]
    )
    def test_an_image_of_another_format_is_called_so_whatever_its_type(self, body: bytes, name: str) -> None:
        refused = problem(body, b"application/x-www-form-urlencoded")
        assert refused.code == "unsupported_format"
        assert name in refused.detail

    def test_what_was_sent_instead_is_called_what_it_is(self) -> None:
        assert "base64" in problem(b64encode(PNG), b"text/plain").detail
        assert "JSON" in problem(b'{"image": "iVBOR"}', b"application/json").detail
        assert "line ends" in problem(PNG.replace(b"\r", b"").replace(b"\n", b""), b"a/b").detail
        assert "is a form" in problem(form(part()), b"application/json").detail


class TestUnsoundForms:
    @pytest.mark.parametrize("length", range(len(form(part()))))
    def test_a_body_that_was_cut_short_is_bad_at_every_length(self, length: int) -> None:
        body = form(part())
        if length >= len(body) - 2:  # just the line end behind the last boundary is missing
            assert files(body[:length]) == [File("seven.png", b"image")]
        else:
            assert code(body[:length]) == "bad_multipart"

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"image", id="no form at all"),
            pytest.param(form(part()).replace(b"\r\n", b"\n"), id="line ends of LF only"),
            pytest.param(form(part(), boundary=b"another"), id="another boundary"),
            pytest.param(form(b"\r\nimage"), id="a part without headers"),
            pytest.param(form(b"Content-Type: image/png\r\n\r\nimage"), id="a part without a disposition"),
            pytest.param(form(b"Content-Disposition: form-data\r\n\r\nimage"), id="a part without a name"),
            pytest.param(form(b'Content-Disposition: attachment; name="file"\r\n\r\nimage'), id="not form-data"),
            pytest.param(form(b"Content Disposition: form-data\r\n\r\nimage"), id="a header with a space in its name"),
            pytest.param(form(b"image"), id="a part without an empty line"),
            pytest.param(form(part(kind=b"x" * 100_000)), id="an endless header"),
            pytest.param(form(b"a: b\r\n" * 1000 + part()), id="very many headers"),
        ],
    )
    def test_a_form_that_is_not_sound_is_bad(self, body: bytes) -> None:
        assert code(body) == "bad_multipart"

    @pytest.mark.parametrize(
        "content_type",
        [
            b"multipart/form-data",
            b"multipart/form-data;",
            b"multipart/form-data; boundary=",
            b'multipart/form-data; boundary=""',
            b"multipart/form-data; boundary*=utf-8''the-boundary",
            b"multipart/form-data; boundary=" + b"x" * 300,
            b"multipart/form-data; bound\xe9ry=\xff",
        ],
    )
    def test_a_form_without_a_usable_boundary_is_bad(self, content_type: bytes) -> None:
        assert code(form(part()), content_type) == "bad_multipart"


class TestBothWaysAgree:
    """What the quick way accepts, python-multipart must read as the very same file."""

    @pytest.mark.slow
    def test_on_generated_bodies(self) -> None:
        plain = Counter[int]()
        for body, content_type in generated(random.Random(3), 20_000):
            quick = upload._plain_files(body, content_type, max_files=32)
            if quick is None:
                continue
            plain[len(quick)] += 1
            general = upload._form_files(body, content_type, max_files=32)
            assert general == quick, (body, content_type)
        assert plain[1] > 2000  # or the comparison would say little
        assert plain[2] > 100

    def test_on_every_single_byte_changed(self) -> None:
        body = form(part(b"\r\n-image"), part(b"another"))
        for i in range(len(body)):
            for byte in b'\r\n -";\\=:xF\x00\xe9':
                changed = body[:i] + bytes([byte]) + body[i + 1 :]
                quick = upload._plain_files(changed, FORM, max_files=32)
                assert quick is None or upload._form_files(changed, FORM, max_files=32) == quick, changed

    @pytest.mark.slow
    def test_no_body_raises_anything_but_a_problem(self) -> None:
        seen = set()
        for body, content_type in generated(random.Random(4), 10_000):
            try:
                files(body, content_type)
                seen.add("files")
            except Problem as problem:
                seen.add(problem.code)
        assert seen == {"files", "bad_multipart", "no_file"}

    def test_the_form_of_common_clients_goes_the_quick_way(self) -> None:
        browser = b"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW"
        several = form(part(b"one"), part(b"two"), boundary=browser.partition(b"=")[2])
        quick = upload._plain_files(several, browser, max_files=2)
        assert quick is not None
        assert [file.data for file in quick] == [b"one", b"two"]

    def test_too_many_files_are_refused_either_way(self) -> None:
        several = form(part(b"one"), part(b"two"))
        for way in (upload._plain_files, upload._form_files):
            with pytest.raises(Problem) as caught:
                way(several, FORM, max_files=1)
            assert caught.value.code == "too_many_files"


def generated(seeded: random.Random, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Bodies with their content types: some plain, most with something odd somewhere."""

    def mostly(plain: bytes | None, odd: Sequence[bytes | None]) -> bytes | None:
        return plain if seeded.random() < 0.8 else seeded.choice(odd)

    for _ in range(count):
        boundary = mostly(BOUNDARY, ODD_BOUNDARIES) or b""
        pieces = [
            b"\r\n--" + boundary,
            b"\r\n--",
            b"--" + boundary,
            b"\r\n",
            b"\r",
            b"-",
            b"x",
            b"\x00",
            b" ",
            boundary,
        ]
        parts = [
            part(
                b"".join(seeded.choices(pieces, k=seeded.randrange(6))),
                name=mostly(b"file", ODD_NAMES) or b"",
                filename=mostly(b"a.png", ODD_FILENAMES),
                kind=mostly(b"image/png", ODD_KINDS),
            )
            for _ in range(seeded.choice([0, 1, 1, 1, 1, 1, 1, 2, 3]))
        ]
        body = form(*parts, boundary=boundary, end=mostly(b"--\r\n", ODD_ENDS) or b"")
        match seeded.randrange(12):
            case 0:
                body = body.replace(b"\r\n", b"\n", seeded.choice([1, 2, -1]))
            case 1:
                body = body[: seeded.randrange(len(body) + 1)]
            case 2:
                at = seeded.randrange(len(body) + 1)
                body = body[:at] + seeded.choice(pieces) + body[at:]
            case 3:
                body = body.swapcase()
            case 4:
                body = seeded.choice([b"\r\n", b"\n", b"preamble\r\n", b" ", b"--"]) + body
        yield body, b"multipart/form-data;" + (mostly(b" ", [b"", b"  "]) or b"") + b"boundary=" + boundary


ODD_BOUNDARIES = [b"b", b"-", b"--", b"a=b", b"'(x)+,./:?", b"x" * 70, b"B" * 71, b'"quoted"', b"a b", b"\xe9", b""]
ODD_NAMES = [b"FILE", b"file[]", b"", b"data", b"fil\xc3\xa9", b'f"', b"file\\"]
ODD_FILENAMES = [
    None, b"", b" ", b" a ", b"a;b", b"a\\b", b"C:\\a.png", b"\\\\host\\a.png", b'a"b', b"a=b", b"=", b"*", b"a%22",
    b"\xe9", "七".encode(), b"a\tb", b"a\x7f", b"'", b"filename=", b'; name="x', b"\xa0a\xa0", b"\x85", b"..",
    b"=?utf-8?B?5LiDLnBuZw==?=", b"=?utf-8?q?", b"a=?utf-8?q?b?=",
    b"x" * 3000,
]  # fmt: skip
ODD_KINDS = [None, b"", b"text/plain; charset=x", b'a/b; c="d', b"image/png ", b"\xe9", b" image/png"]
ODD_ENDS = [b"--", b"", b"-", b"--\n", b"--\r\nepilogue", b"--\r\n\r\n", b"\r\n", b"-- \r\n", b"--\r"]


def receiving(*messages: Message) -> Receive:
    """An ASGI `receive` of these messages, then of nothing for ever."""
    waiting = iter(messages)

    async def receive() -> Message:
        for message in waiting:
            return message
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets it")

    return receive


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.anyio
class TestReadBody:
    async def test_the_pieces_are_put_together(self) -> None:
        receive = receiving(piece(b"ab"), piece(b""), piece(b"c", more=False))
        assert await read_body(receive, max_bytes=3) == b"abc"

    async def test_one_byte_too_many_ends_the_reading(self) -> None:
        with pytest.raises(Problem) as caught:
            await read_body(receiving(piece(b"ab"), piece(b"cd")), max_bytes=3)
        assert caught.value.code == "upload_too_large"

    async def test_a_client_that_hangs_up_is_told_apart_from_one_that_is_through(self) -> None:
        with pytest.raises(ClientDisconnect):
            await read_body(receiving(piece(b"ab"), {"type": "http.disconnect"}), max_bytes=3)
