"""A store behind a URL. What it is asked goes through fsspec; what goes wrong is one line. Imports no torch."""

import contextlib
import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

# What an object store says of an object that changes with its content, the surest first.
_STAMPS = ("ETag", "etag", "generation", "blob_id", "content_hash", "LastModified", "last_modified", "mtime", "created")
# A network that is gone is noticed within a minute, not within ten. s3fs tries by itself, and tries reads squared.
_TRIES = 2
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 3, "read_timeout": 10, "retries": {"total_max_attempts": 1}}},
}
# What trickles keeps its connection alive. An object must be read in so many seconds, and longer if it is large.
_PATIENCE = 60.0
_SLOWEST = 100_000  # bytes a second
_MAX_REASON = 300
_PUTS = 5


class StoreError(OSError):
    """A store cannot be reached, or refuses. The message says in one line why."""


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """Is one name that a store lists.

    Args:
        size: in bytes; 0 for a folder.
        stamp: changes when the content does: the ETag, where there is one.
    """

    name: str
    is_folder: bool
    size: int = 0
    stamp: str = ""


class RemoteStore:
    """Lists, reads and writes what lies below a URL. Every method waits for the network.

    They raise FileNotFoundError where there is no such thing, and StoreError for whatever else goes wrong.
    """

    def __init__(self, url: str) -> None:
        """Takes a URL as `store_address` gives it. Nothing is asked yet."""
        from fsspec.config import conf
        from fsspec.core import url_to_fs

        self.url = url
        self._scheme = scheme = url.partition("://")[0]
        options = {key: value for key, value in _OPTIONS.get(scheme, {}).items() if key not in conf.get(scheme, {})}
        with _asking(url):
            self._files, self._root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
        if hasattr(self._files, "retries"):
            self._files.retries = _TRIES

    def url_of(self, *names: str) -> str:
        """Returns the URL of what lies there."""
        return "/".join((self.url, *names))

    def entries(self, *names: str) -> list[RemoteEntry]:
        """Lists what lies below the URL, or in a folder there."""
        folder = self._path(*names)
        with _asking(self.url_of(*names)):
            listed = self._files.ls(folder, detail=True)
        found = []
        for info in listed:
            name = str(info["name"]).rstrip("/").rpartition("/")[2]
            if not name or str(info["name"]).strip("/") == folder.strip("/"):  # some list the folder itself
                continue
            is_folder = info["type"] == "directory"
            found.append(RemoteEntry(name, is_folder, 0 if is_folder else int(info["size"] or 0), _stamp(info)))
        return found

    def names(self) -> list[str]:
        """Lists all objects below the URL, however deep, by their names from there, in order."""
        with _asking(self.url):
            found = self._files.find(self._root)
        root = f"{self._root.strip('/')}/"
        return sorted(str(each).strip("/").removeprefix(root) for each in found)

    def check_bucket(self) -> None:
        """Checks that there is a bucket to make objects in. Raises: FileNotFoundError.

        Where a bucket may not be listed, or where there are none, nothing is known.
        """
        bucket = self._root.strip("/").partition("/")[0]
        with contextlib.suppress(StoreError), _asking(self.url):
            if self._scheme == "s3":
                self._files.ls(bucket)

    def read_all(self, *names: str) -> bytes:
        """Reads an object."""
        with _asking(self.url_of(*names)):
            return bytes(self._files.cat_file(self._path(*names)))

    def read(self, *names: str, start: int, end: int) -> bytes:
        """Returns a part of an object: fewer bytes where it ends before."""
        with _asking(self.url_of(*names)):
            piece = self._files.cat_file(self._path(*names), start=start, end=end, **self._limit(end - start))
            return bytes(piece)

    def fetch(self, *names: str, to: Path, size: int | None = None) -> None:
        """Writes an object into a file.

        Args:
            size: how many bytes it has, which says how long it may take; None: as long as something comes.
        """
        limit = {} if size is None else self._limit(size)
        with _asking(self.url_of(*names)):
            self._files.get_file(self._path(*names), str(to), **limit)

    def create(self, *names: str, content: Path) -> None:
        """Makes an object of a file, whole or not at all.

        Raises: FileExistsError, if there is one. Where the store has no conditional put, one that is made in the same
        moment may be overwritten.
        """
        url = self.url_of(*names)
        for tries_left in reversed(range(_PUTS)):
            try:
                with _asking(url):
                    self._files.put_file(str(content), self._path(*names), mode="create")
                return
            except (StoreError, FileNotFoundError) as error:
                status = http_status(error)
                # The first as servers say it whose words s3fs does not know. The second as gcsfs says it of a large
                # file: it asks the server to forget the upload that was refused, and hears that there is none.
                refused = status == HTTPStatus.PRECONDITION_FAILED
                if refused or any(isinstance(each, FileExistsError) for each in _causes(error)):
                    raise _exists(url) from error
                if status != HTTPStatus.CONFLICT or not tries_left:  # two at once: S3 asks the loser to try again
                    raise

    def remove(self, *names: str) -> None:
        """Removes an object."""
        with _asking(self.url_of(*names)):
            self._files.rm_file(self._path(*names))

    def _limit(self, size: int) -> dict[str, float]:
        """Returns how long so many bytes may take, as fsspec's asynchronous file systems are told."""
        return {"timeout": _PATIENCE + size / _SLOWEST} if self._scheme == "s3" else {}

    def _path(self, *names: str) -> str:
        return "/".join((self._root.rstrip("/"), *names))


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
    """Turns whatever goes wrong into an OSError that names the URL in one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from error
    except FileExistsError as error:
        raise _exists(url) from error
    except TimeoutError as error:
        raise StoreError(f"{url}: it did not come in time") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of this machine's disk
            raise
        raise _store_error(url, error) from error
    except Exception as error:  # each library has errors of its own
        raise _store_error(url, error) from error


def _store_error(url: str, error: Exception) -> StoreError:
    text = " ".join(str(error).split()) or type(error).__name__
    return StoreError(f"{url}: {text[:_MAX_REASON]}")


def _exists(url: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "there is an object already", url)


def http_status(error: BaseException | None) -> int | None:
    """Returns the HTTP status that a store answered with, if an error in the chain knows it as botocore's do."""
    for each in _causes(error):
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            status: int = each.response["ResponseMetadata"]["HTTPStatusCode"]  # type: ignore[attr-defined]
            return status
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _stamp(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _STAMPS if info.get(key)), "")
