"""A store behind a URL: memory, and servers of S3, Azure and Google where they are installed."""

import errno
import http.server
import re
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

from classifier.store import remote
from classifier.store.remote import RemoteEntry, RemoteStore, StoreError
from tests.support.memory_store import memory_url
from tests.support.proxy import cutting_proxy
from tests.support.s3 import S3Server

SERVERS = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.cluster]) for name in ("s3", "azure", "google")]


@pytest.fixture(params=["memory", *SERVERS])
def store(request: pytest.FixtureRequest) -> RemoteStore:
    return RemoteStore(memory_url() if request.param == "memory" else request.getfixturevalue(request.param).new_url())


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> RemoteStore:
    """A store of a real server, which takes puts of several at once."""
    return RemoteStore(request.getfixturevalue(request.param).new_url())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_where_nothing_lies_there_is_no_such_thing(store: RemoteStore, tmp_path: Path) -> None:
    for ask in (
        store.entries,
        lambda: store.entries("mnist"),
        lambda: store.read("mnist", "1.safetensors", start=0, end=8),
        lambda: store.fetch("mnist", "1.safetensors", to=tmp_path / "copy"),
    ):
        with pytest.raises(FileNotFoundError, match="there is no such object") as caught:
            ask()
        assert caught.value.filename.startswith(store.url)
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_is_listed_and_read_and_fetched(store: RemoteStore, file: Path, tmp_path: Path) -> None:
    store.create("mnist", "1.safetensors", content=file)
    assert store.entries() == [RemoteEntry("mnist", is_folder=True)]
    (entry,) = store.entries("mnist")
    assert (entry.name, entry.is_folder, entry.size) == ("1.safetensors", False, 10)
    assert entry.stamp != ""
    assert store.read("mnist", "1.safetensors", start=2, end=4) == b"23"
    assert store.read("mnist", "1.safetensors", start=8, end=100) == b"89"
    store.fetch("mnist", "1.safetensors", to=tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"0123456789"
    assert store.url_of("mnist", "1.safetensors") == f"{store.url}/mnist/1.safetensors"


def test_what_somebody_else_makes_is_seen_at_once(store: RemoteStore, file: Path) -> None:
    other = RemoteStore(store.url)
    other.create("mnist", "1.safetensors", content=file)
    assert len(store.entries("mnist")) == 1
    other.create("mnist", "2.safetensors", content=file)
    assert {entry.name for entry in store.entries("mnist")} == {"1.safetensors", "2.safetensors"}


def test_another_content_has_another_stamp(store: RemoteStore, file: Path) -> None:
    store.create("mnist", "1.safetensors", content=file)
    (before,) = store.entries("mnist")
    store.remove("mnist", "1.safetensors")
    file.write_bytes(b"9876543210")
    store.create("mnist", "1.safetensors", content=file)
    (after,) = store.entries("mnist")
    assert after.stamp != before.stamp


def test_what_is_there_is_not_overwritten(store: RemoteStore, file: Path, tmp_path: Path) -> None:
    store.create("mnist", "1.safetensors", content=file)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pytest.raises(FileExistsError, match="there is an object already"):
        store.create("mnist", "1.safetensors", content=other)
    assert store.read("mnist", "1.safetensors", start=0, end=10) == b"0123456789"


def test_what_was_removed_is_gone(store: RemoteStore, file: Path) -> None:
    store.create("mnist", "1.safetensors", content=file)
    store.create("mnist", "2.safetensors", content=file)
    store.remove("mnist", "1.safetensors")
    assert [entry.name for entry in store.entries("mnist")] == ["2.safetensors"]


def test_of_four_who_make_the_same_object_at_once_one_wins(served: RemoteStore, tmp_path: Path) -> None:
    store, outcomes = served, Counter[str]()
    barrier = threading.Barrier(4)

    def make(number: int) -> None:
        file = tmp_path / str(number)
        file.write_bytes(bytes([number]) * 100_000)
        barrier.wait()
        try:
            store.create("mnist", "1.safetensors", content=file)
            outcomes["made"] += 1
        except FileExistsError:
            outcomes["exists"] += 1

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"made": 1, "exists": 3}
    assert len(set(store.read("mnist", "1.safetensors", start=0, end=100_000))) == 1


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of aiohttp, which adlfs uses so
def test_an_object_of_several_parts_is_not_overwritten_either(served: RemoteStore, tmp_path: Path) -> None:
    store, large = served, tmp_path / "large"
    large.write_bytes(bytes(60_000_000))
    store.create("mnist", "1.safetensors", content=large)
    (before,) = store.entries("mnist")
    large.write_bytes(b"1" * 60_000_000)
    with pytest.raises(FileExistsError):
        store.create("mnist", "1.safetensors", content=large)
    assert store.entries("mnist") == [before]


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
class TestTrouble:
    def test_a_bucket_that_is_not_there_is_no_such_thing(self) -> None:
        with pytest.raises(FileNotFoundError):
            RemoteStore("s3://no-such-bucket/models").entries()

    def test_a_store_that_cannot_be_reached_is_one_line_that_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
        with pytest.raises(StoreError, match=r"^s3://bucket/models: Could not connect") as caught:
            RemoteStore("s3://bucket/models").entries()
        assert "\n" not in str(caught.value)

    def test_without_credentials_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(StoreError, match="credentials"):
            RemoteStore("s3://bucket/models").entries()


@pytest.mark.parametrize(
    "error",
    [PermissionError("Access\nDenied"), RuntimeError("no\tcredentials"), TimeoutError(), ValueError("x" * 10_000)],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_library_raises_is_one_line_that_names_the_url(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RemoteStore(memory_url())

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store._files, "ls", refuse)
    with pytest.raises(StoreError) as caught:
        store.entries()
    text = str(caught.value)
    assert text.startswith(f"{store.url}: ")
    assert text.isprintable()
    assert len(text) < 400


class Answered(Exception):
    """As botocore's ClientError: it has what the store answered."""

    def __init__(self, status: int) -> None:
        super().__init__("the store has words of its own")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class TestAStoreWhoseAnswersAreNotUnderstood:
    """Some say 412 in other words than S3, and S3 says 409 to the one of two at once who has to try again."""

    @pytest.fixture
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        answers: list[int] = []

        def put(*_: object, **__: object) -> None:
            if answers:
                raise OSError(22, "translated") from Answered(answers.pop(0))

        monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.put_file", put)
        return answers

    def test_412_means_that_there_is_an_object(self, answers: list[int], file: Path) -> None:
        answers[:] = [412]
        with pytest.raises(FileExistsError, match="there is an object already"):
            RemoteStore(memory_url()).create("mnist", "1.safetensors", content=file)

    def test_409_is_tried_again(self, answers: list[int], file: Path) -> None:
        answers[:] = [409, 409]
        RemoteStore(memory_url()).create("mnist", "1.safetensors", content=file)
        assert answers == []

    def test_409_is_not_tried_for_ever(self, answers: list[int], file: Path) -> None:
        answers[:] = [409] * 100
        with pytest.raises(StoreError):
            RemoteStore(memory_url()).create("mnist", "1.safetensors", content=file)
        assert len(answers) == 95

    def test_anything_else_is_an_error_at_once(self, answers: list[int], file: Path) -> None:
        answers[:] = [403, 403]
        with pytest.raises(StoreError):
            RemoteStore(memory_url()).create("mnist", "1.safetensors", content=file)
        assert answers == [403]


@pytest.mark.slow
@pytest.mark.cluster
def test_an_object_that_trickles_is_given_up(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3.new_url()
    (tmp_path / "file").write_bytes(bytes(200_000))
    RemoteStore(url).create("mnist", "1.safetensors", content=tmp_path / "file")
    monkeypatch.setattr(remote, "_PATIENCE", 0.5)
    monkeypatch.setattr(remote, "_SLOWEST", 1e6)
    with cutting_proxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        store = RemoteStore(url)
        proxy.bytes_left, proxy.trickles = 50_000, True
        with pytest.raises(StoreError, match="it did not come in time"):
            store.fetch("mnist", "1.safetensors", to=tmp_path / "copy", size=200_000)
        with pytest.raises(StoreError, match="it did not come in time"):
            store.read("mnist", "1.safetensors", start=0, end=200_000)


class Refusing(http.server.BaseHTTPRequestHandler):
    """A store that answers every request with what `refusal` says."""

    refusal: ClassVar[tuple[int, str, str]]

    def do_GET(self) -> None:
        status, code, words = self.refusal
        body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize(
    "refusal",
    [
        (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
        (403, "AccessDenied", "Access Denied"),
        (503, "SlowDown", "Please reduce your request rate."),
        (500, "InternalError", "We encountered an internal error. Please try again."),
    ],
    ids=lambda refusal: refusal[1],
)
def test_a_store_that_refuses_is_quoted_in_one_line(
    s3: S3Server, refusal: tuple[int, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusing, "refusal", refusal, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        store = RemoteStore(s3.new_url())
        for ask in (
            store.entries,
            lambda: store.read("mnist", "1.safetensors", start=0, end=8),
            lambda: store.fetch("mnist", "1.safetensors", to=tmp_path / "copy"),
        ):
            with pytest.raises(StoreError, match=re.escape(refusal[2].rstrip("."))) as caught:
                ask()
            assert str(caught.value).startswith(store.url)
            assert "\n" not in str(caught.value)
        server.shutdown()


def test_a_disk_that_is_full_is_no_fault_of_the_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    store = RemoteStore(memory_url())
    store.create("mnist", "1.safetensors", content=file)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store._files, "get_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        store.fetch("mnist", "1.safetensors", to=tmp_path / "copy")
    assert not isinstance(caught.value, StoreError)
    assert caught.value.errno == errno.ENOSPC
