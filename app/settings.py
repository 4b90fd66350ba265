"""All settings of the server: flags, FLAMBEAU_* in the environment, and a `.env` file. Imports no torch."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from classifier.cores import usable_cores
from classifier.paths import typed_path
from classifier.store.address import store_address

PREFIX = "FLAMBEAU_"
_DAY = 86_400  # seconds; timers have an end

# What Kubernetes puts into each pod for a Service that is called `flambeau`, or `flambeau-` and anything.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_A_SERVICE = re.compile(
    PREFIX + r"([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_URL_OF_A_SERVICE = re.compile("(tcp|udp|sctp)://")  # what the variable that ends in _PORT holds

# A setting that is a path.
_TypedPath = Annotated[Path, BeforeValidator(lambda value: typed_path(value) if isinstance(value, str) else value)]

_StoreAddress = Annotated[
    Path | str, BeforeValidator(lambda value: store_address(value) if isinstance(value, str) else value)
]


class SettingsError(Exception):
    """Some settings cannot be used. The message has a line for each, which names it."""


class Settings(BaseSettings):
    """Serves the checkpoints of a store. Flags win over FLAMBEAU_<NAME> in the environment, and both over .env.

    To score a folder of images instead: python -m app score --help
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,  # FLAMBEAU_MODEL= in a .env or a compose file means: not set
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        cli_prog_name="python -m app",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,  # --compile, not --compile true
    )

    host: str = Field("127.0.0.1", description="The address to listen on. 0.0.0.0 means all addresses.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on. 0 takes a free one.")
    store: _StoreAddress = Field(
        Path("models_store"),
        description="Where the published checkpoints are: a folder, or a URL such as s3://bucket/folder.",
    )
    cache: _TypedPath | None = Field(
        None,
        description="The folder for what is fetched of a store behind a URL. Several servers may share it. If it is "
        "not set, it is ~/.cache/flambeau.",
    )
    cache_gb: float = Field(20, gt=0, description="How many gigabytes the cache may have.")
    device: str = Field(
        "auto", description="Where networks compute: cuda, cuda:1, mps or cpu. auto takes the first that is there."
    )
    model: str | None = Field(None, description="The model that answers when a request names none.")

    front_ends: int | None = Field(
        None,
        ge=0,
        le=256,
        description="How many processes answer HTTP and decode images. One more process has the models. 0 means that "
        "one process does it all. If it is not set, there is one fewer than there are cores.",
    )
    max_batch: int = Field(64, ge=1, le=4096, description="How many images one batch may have.")
    max_batch_ms: float = Field(
        150, gt=0, description="How many milliseconds one batch may take. The server estimates it from earlier batches."
    )
    max_queue: int = Field(1024, ge=1, description="How many images may wait for a batch.")
    max_requests: int = Field(1024, ge=1, description="How many predictions may be in progress in one process.")
    max_connections: int = Field(4096, ge=1, description="How many connections may be open to one process.")
    max_files: int = Field(32, ge=1, description="How many images one request may have.")
    max_upload_mb: float = Field(20, gt=0, description="How many megabytes the body of one request may have.")
    max_pending_mb: float = Field(
        512,
        gt=0,
        description="How many megabytes the bodies of all requests in progress may have together. A body whose length "
        "is not known counts as max_upload_mb.",
    )
    max_megapixels: float = Field(50, gt=0, le=178, description="How many megapixels one image may have.")
    max_pending_megapixels: float = Field(
        200, gt=0, description="How many megapixels all images that are being decoded may have together."
    )
    decode_threads: int = Field(
        0, ge=0, le=1024, description="How many threads decode large images. 0 means one for each core."
    )
    jpeg_draft: bool = Field(
        False,
        description="Decode large JPEGs at a half, a quarter or an eighth of their size. It is quicker, and the pixels "
        "are not quite the same.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="The numbers that networks compute with. bf16 is up to twice as quick, and its answers are not "
        "quite those of training.",
    )
    torch_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="How many threads compute one batch on a CPU. With a number, there is one batch at a time. 0 means "
        "all cores but one. For a large network 0 means all cores, which the batches in progress share.",
    )
    compile: bool = Field(
        False,
        description="Compile each network with torch.compile when it is loaded. It is up to a third quicker. Loading "
        "takes half a minute longer, or more. On a CPU it needs a C++ compiler, and there is one batch at a time.",
    )

    deadline_seconds: float = Field(
        30, gt=0, le=_DAY, description="After how many seconds a prediction, or the wait for a reload, is given up."
    )
    hold_seconds: float = Field(
        10,
        ge=0,
        le=_DAY,
        description="For how many seconds a prediction waits for an engine that is being started, at the start of the "
        "server or after the engine process has died. 0: it is told at once.",
    )
    upload_seconds: float = Field(
        20, gt=0, le=_DAY, description="Within how many seconds the body of a request must have come."
    )
    header_seconds: float = Field(
        10, gt=0, le=_DAY, description="Within how many seconds the headers of a request must have come."
    )
    keep_alive_seconds: int = Field(
        75, ge=1, le=_DAY, description="For how many seconds an idle connection stays open."
    )
    drain_seconds: float = Field(
        2,
        ge=0,
        le=_DAY,
        description="For how many seconds the port stays open after SIGTERM. Meanwhile the server is not ready, and "
        "every answer closes its connection. It is less if no connection is open.",
    )
    drain_min_seconds: float = Field(
        0,
        ge=0,
        le=_DAY,
        description="For how many seconds it stays open at least, for a load balancer that learns late.",
    )
    grace_seconds: float = Field(
        30,
        gt=0,
        le=_DAY,
        description="How many seconds accepted requests get to be answered once the port is closed after SIGTERM.",
    )
    poll_seconds: float = Field(
        10, ge=0.1, le=_DAY, description="For how many seconds at most a new checkpoint may stay unseen."
    )

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="The origins whose pages may call this server, separated by commas. * means all origins."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level of events that are logged."
    )
    log_format: Literal["lines", "json"] = Field(
        "lines", description="How events are logged: as lines for people, or as JSON for machines."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("store")
    @classmethod
    def _can_be_said(cls, value: Path | str) -> Path | str:
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise ValueError("the path is not UTF-8") from error
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  _Environment takes its place
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), dotenv_settings, file_secret_settings

    def share_of(self, processes: int) -> Self:
        """Returns the settings of one of so many front-ends: its share of the bytes, pixels and threads of the server.

        Numbers of connections and requests are not divided. The process that accepts first gets them, so one process
        may well have most of them while the others have room. The engine counts `max_queue` for all.
        """
        return self.model_copy(
            update={
                "max_pending_mb": self.max_pending_mb / processes,
                "max_pending_megapixels": self.max_pending_megapixels / processes,
                "decode_threads": self.decode_threads or max(1, usable_cores() // processes),
            }
        )

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Self:
        """Reads flags, the environment and `.env`. `--help` and unknown flags end the process.

        Raises: SettingsError.
        """
        given = {name: value for name, value in os.environ.items() if not _tells_of_a_service(name, value)}
        _refuse_unknown_names(given, "the environment", cls)
        _refuse_unknown_names(dotenv_values(".env"), ".env", cls)
        try:
            return cls(_cli_parse_args=list(arguments))
        except ValidationError as error:
            lines = (f"{PREFIX}{_where(problem['loc']).upper()}: {problem['msg']}" for problem in error.errors())
            raise SettingsError("\n".join(lines)) from error


class _Environment(EnvSettingsSource):
    """Is the environment, in which FLAMBEAU_PORT=tcp://10.0.0.1:8000 tells of a Service and sets no port."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return None if _tells_of_a_service(PREFIX + field_name, value) else value, key, is_complex


def _tells_of_a_service(name: str, value: str | None) -> bool:
    name = name.upper()
    if name.endswith("_PORT") and value is not None and _URL_OF_A_SERVICE.match(value):
        return True
    return _OF_A_SERVICE.fullmatch(name) is not None


def _refuse_unknown_names(names: Mapping[str, str | None], where: str, settings: type[Settings]) -> None:
    """Refuses a setting that is misspelt, which would silently do nothing. Raises: SettingsError."""
    known = [name.upper() for name in settings.model_fields]
    for name in names:
        if name.upper().startswith(PREFIX) and name.upper().removeprefix(PREFIX) not in known:
            (near,) = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=0)
            raise SettingsError(f"{name} in {where} is no setting; the nearest is {PREFIX}{near} (see --help)")


def _where(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else ""
