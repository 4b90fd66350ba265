"""A real S3 server on loopback: moto's, in a process of its own, so that it can be killed and started again."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.cluster import needed

_NUMBERS = itertools.count()

# What a client needs to ask it. It takes any credentials.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_SERVE = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]))
server.start()
print("port", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """A server that has nothing when it starts, and forgets everything when it ends."""

    def __init__(self) -> None:
        self.port = 0
        self.start_again()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client of this server has in its environment."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.endpoint}

    def new_url(self) -> str:
        """Makes a bucket, and returns the URL of a folder in it."""
        bucket = f"bucket-{next(_NUMBERS)}"
        self.make(bucket)
        return f"s3://{bucket}/models"

    def make(self, bucket: str) -> None:
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=bucket)

    def stop(self) -> None:
        """Kills the server: whoever asks it is refused."""
        self._process.kill()
        self._process.communicate()

    def start_again(self) -> None:
        """Starts it at the same port, without any bucket."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(self.port)],
            stdin=subprocess.PIPE,  # it ends with this process
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        assert self._process.stdout is not None
        line = next(line for line in self._process.stdout if line.startswith("port "))
        self.port = int(line.split()[1])


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Starts a server. Skips the test where the extra is not installed; `make test-cluster` fails instead."""
    for module in ("moto", "boto3", "s3fs"):
        needed(module)
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
