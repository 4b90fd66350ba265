"""All settings of the server: FLAMBEAU_* in the environment, a `.env` file, and flags of the same names."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from classifier.cores import usable_cores

PREFIX = "FLAMBEAU_"
_DAY = 86_400  # seconds; timers have an end


class SettingsError(Exception):
    """Settings that cannot be used; the message names the setting, one line each."""


class Settings(BaseSettings):
    """Serves the checkpoints of a store. Each flag is FLAMBEAU_<NAME> in the environment or in .env, too; flags win."""

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

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    store: Path = Field(Path("models_store"), description="folder of published checkpoints")
    device: str = Field("auto", description="cuda, cuda:1, mps, cpu; auto takes the first that is there")
    model: str | None = Field(None, description="the model that answers when a request names none")

    front_ends: int | None = Field(
        None,
        ge=0,
        le=256,
        description="processes that answer HTTP and decode, beside one that has the models; 0: one process does it "
        "all; one fewer than there are cores, if not set",
    )
    max_batch: int = Field(64, ge=1, le=4096, description="images in one batch")
    max_batch_ms: float = Field(150, gt=0, description="how long one batch may take, by a running estimate")
    max_queue: int = Field(1024, ge=1, description="images that may wait for a batch")
    max_requests: int = Field(1024, ge=1, description="predictions that may be in progress in one process")
    max_connections: int = Field(4096, ge=1, description="connections that may be open to one process")
    max_files: int = Field(32, ge=1, description="images in one request")
    max_upload_mb: float = Field(20, gt=0, description="size of one request's body")
    max_pending_mb: float = Field(512, gt=0, description="bytes of all bodies held at once")
    max_megapixels: float = Field(50, gt=0, le=178, description="size of one image")
    max_pending_megapixels: float = Field(200, gt=0, description="of all images being decoded at once")
    decode_threads: int = Field(0, ge=0, le=1024, description="for large images; 0 takes one for each core")
    jpeg_draft: bool = Field(
        False, description="decode large JPEGs at a half, a quarter or an eighth: quicker, not quite the same pixels"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the network; in bf16 answers are not quite those of training, and up to twice as quick"
    )
    torch_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="of one batch on a CPU, and one batch at a time; 0 takes all cores but one, or, for a large "
        "network, all, which the batches in progress share",
    )
    compile: bool = Field(
        False,
        description="compile each network when it is loaded, with torch.compile: up to a third quicker, after half a "
        "minute or more; on a CPU it takes a C++ compiler, and one batch is computed at a time",
    )

    deadline_seconds: float = Field(
        30, gt=0, le=_DAY, description="after which a prediction, or the wait for a reload, is given up"
    )
    upload_seconds: float = Field(20, gt=0, le=_DAY, description="within which a request's body must have come")
    header_seconds: float = Field(10, gt=0, le=_DAY, description="within which a request's head must have come")
    keep_alive_seconds: int = Field(75, ge=1, le=_DAY, description="how long an idle connection stays open")
    grace_seconds: float = Field(30, gt=0, le=_DAY, description="for accepted requests after SIGTERM")
    poll_seconds: float = Field(
        10, ge=0.1, le=_DAY, description="how long a new checkpoint may stay unseen at the most"
    )

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may call this server, separated by commas; * for all"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="of what is logged")
    log_format: Literal["lines", "json"] = Field("lines", description="for people or for machines")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("store")
    @classmethod
    def _can_be_said(cls, value: Path) -> Path:
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise ValueError("the path is not UTF-8") from error
        return value

    def share_of(self, processes: int) -> Self:
        """What each of so many processes may hold, of what the server may.

        Numbers of connections and requests are not divided: whoever accepts first gets them, and one process may well
        have most of them while the others have room. `max_queue` is counted for all by the engine.
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
        """From flags, the environment and `.env`. `--help` and flags that are not known end the process.

        Raises: SettingsError.
        """
        _refuse_unknown_names(os.environ, "the environment", cls)
        _refuse_unknown_names(dotenv_values(".env"), ".env", cls)
        try:
            return cls(_cli_parse_args=list(arguments))
        except ValidationError as error:
            lines = (f"{PREFIX}{_where(problem['loc']).upper()}: {problem['msg']}" for problem in error.errors())
            raise SettingsError("\n".join(lines)) from error


def _refuse_unknown_names(names: Mapping[str, object], where: str, settings: type[Settings]) -> None:
    """A setting that is misspelt would silently do nothing."""
    known = [name.upper() for name in settings.model_fields]
    for name in names:
        if name.upper().startswith(PREFIX) and name.upper().removeprefix(PREFIX) not in known:
            (near,) = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=0)
            raise SettingsError(f"{name} in {where} is no setting; the nearest is {PREFIX}{near} (see --help)")


def _where(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else ""
