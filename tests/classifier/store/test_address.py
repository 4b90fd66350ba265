"""Where a store is, as a person types it: a folder, or a URL of an object store."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from classifier.store import address
from classifier.store.address import AddressError, store_address
from tests.support.server import PROJECT


@pytest.mark.parametrize("text", ["models_store", "/srv/models", "./s3", "a:b", "s3:/bucket"])
def test_what_is_no_url_is_a_folder(text: str) -> None:
    assert store_address(text) == Path(text)


def test_a_home_folder_is_meant_by_a_tilde() -> None:
    assert store_address("~/models") == Path.home() / "models"


@pytest.mark.parametrize(
    ("url", "folder"),
    [("file:///srv/models", "/srv/models"), ("file://localhost/srv/my%20models/", "/srv/my models")],
)
def test_a_file_url_is_a_folder(url: str, folder: str) -> None:
    assert store_address(url) == Path(folder)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "S3://bucket//", "s3://bucket/models/"])
def test_a_url_is_taken_without_slashes_at_its_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "find_spec", lambda _: object())
    assert store_address(url) == ("s3://bucket/models" if "models" in url else "s3://bucket")


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("az", "azure"), ("hf", "hf")])
def test_where_something_is_missing_the_message_names_the_extra(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "find_spec", lambda _: None)
    with pytest.raises(AddressError, match=rf"^{scheme}:// needs .*: pip install 'flambeau\[{extra}\]'$"):
        store_address(f"{scheme}://bucket")


def test_memory_needs_nothing_that_is_not_there() -> None:
    assert find_spec("fsspec") is not None
    assert store_address("memory://models") == "memory://models"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "ftp://host/models",
            "ftp:// is no store: give a folder, or a URL that begins with s3://, gs://, az://, hf:// or",
        ),
        ("https://host/models", "https:// is no store"),
        ("memory://", "memory:// names no place"),
        ("memory:///", "memory:// names no place"),
        ("file://host/models", "is no folder of this machine"),
        ("file://", "is no folder of this machine"),
    ],
)
def test_a_url_that_is_no_store_is_refused_in_one_line(url: str, said: str) -> None:
    with pytest.raises(AddressError) as caught:
        store_address(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.process
def test_whoever_names_a_folder_imports_no_fsspec() -> None:
    asked = (
        "import sys; import classifier.store.remote, app.lifecycle.remote_storage; from app.settings import Settings"
    )
    code = f"{asked}; Settings(); sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
