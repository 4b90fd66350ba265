"""A server of Google's object store on loopback, in a process of its own.

It is the emulator of the package index, with what it lacks: it overwrites also where a client says that there must be
no such object. Google answers 412 then (https://cloud.google.com/storage/docs/request-preconditions), to the last part
of an upload in parts.
"""

import itertools
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.cluster import needed

_NUMBERS = itertools.count()
_SERVE = """
import sys
from http import HTTPStatus
from gcp_storage_emulator.exceptions import Conflict, NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import Storage

must_be_new = refused = False  # of the request at hand; there is one at a time
create_file = Storage.create_file

def conditional(handle):
    def handled(request, response, storage, *args, **kwargs):
        global must_be_new, refused
        refused, must_be_new = False, request.query.get("ifGenerationMatch") == ["0"]
        handle(request, response, storage, *args, **kwargs)
        if refused:
            response.status = HTTPStatus.PRECONDITION_FAILED
    return handled

def create_new_file(self, bucket_name, file_name, *args, **kwargs):
    global refused
    if must_be_new:
        try:
            self.get_file_obj(bucket_name, file_name)
        except NotFound:
            pass
        else:
            refused = True
            raise Conflict("there is one already")
    return create_file(self, bucket_name, file_name, *args, **kwargs)

Storage.create_file = create_new_file
objects.insert, objects.upload_partial = map(conditional, (objects.insert, objects.upload_partial))

from gcp_storage_emulator.server import HANDLERS, create_server  # which takes the handlers as they are now

def forget(request, response, storage, *args, **kwargs):
    response.status = HTTPStatus.NOT_FOUND  # an upload that was refused is over

for _, handlers in HANDLERS:
    if objects.insert in handlers.values():
        handlers["DELETE"] = forget
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print("port", server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
server.stop()
"""


class GoogleServer:
    """A server that has nothing when it starts; see `google_server`."""

    def __init__(self, port: int) -> None:
        self._endpoint = f"http://127.0.0.1:{port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client of this server has in its environment."""
        return {"STORAGE_EMULATOR_HOST": self._endpoint}

    def new_url(self) -> str:
        """Makes a bucket, and returns the URL of a folder in it."""
        name = f"bucket-{next(_NUMBERS)}"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310  loopback
            f"{self._endpoint}/storage/v1/b?project=test", f'{{"name": "{name}"}}'.encode(), headers
        )
        urllib.request.urlopen(request).close()  # noqa: S310  loopback
        return f"gs://{name}/models"


@contextmanager
def google_server() -> Iterator[GoogleServer]:
    """Starts a server. Skips the test where the extra is not installed; `make test-cluster` fails instead."""
    needed("gcsfs")
    needed("gcp_storage_emulator")
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,  # it ends with this process
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("port ")), None)
        assert line is not None, "the emulator does not start"
        yield GoogleServer(int(line.split()[1]))
        assert process.stdin is not None
        process.stdin.close()
