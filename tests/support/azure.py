"""A real server of Azure's blobs on loopback: Azurite, Microsoft's own for tests, in a process of Node."""

import base64
import itertools
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.cluster import find_azurite, needed

_NUMBERS = itertools.count()
_ACCOUNT = "someone"


class AzureServer:
    """A server that has nothing when it starts; see `azure_server`."""

    def __init__(self, port: int, key: str) -> None:
        endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
        self._connection = (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client of this server has in its environment."""
        return {"AZURE_STORAGE_CONNECTION_STRING": self._connection}

    def new_url(self) -> str:
        """Makes a container, and returns the URL of a folder in it."""
        from azure.storage.blob import BlobServiceClient

        name = f"container-{next(_NUMBERS)}"
        with BlobServiceClient.from_connection_string(self._connection) as client:
            client.create_container(name)
        return f"az://{name}/models"


@contextmanager
def azure_server() -> Iterator[AzureServer]:
    """Starts a server. Skips the test where the extra is not installed; `make test-cluster` fails instead."""
    needed("adlfs")
    program = find_azurite()
    key = base64.b64encode(os.urandom(64)).decode()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        # A newer client may speak a version of the protocol that it does not know yet.
        flags = ["--skipApiVersionCheck", "--disableTelemetry", "--location", folder, "--blobPort", str(port)]
        with subprocess.Popen(
            [str(program), "--blobHost", "127.0.0.1", *flags],
            env=os.environ | {"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{key}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert any("successfully listens" in line for line in process.stdout), "Azurite does not start"
                yield AzureServer(port, key)
            finally:
                process.kill()
