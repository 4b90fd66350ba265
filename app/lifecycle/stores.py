"""Which storage and which watcher a store wants: a folder those of this machine, a URL those of an object store."""

import os
import tempfile
from pathlib import Path

from app.lifecycle.cache import Cache
from app.lifecycle.remote_storage import RemoteStorage
from app.lifecycle.storage import LocalFolder, Storage
from app.lifecycle.watcher import FolderWatcher, Poller, Watcher
from app.settings import Settings
from classifier.store.remote import RemoteStore


def storage_of(settings: Settings) -> Storage:
    """Returns where the models of these settings are found. Nothing is asked yet."""
    if isinstance(settings.store, str):
        cache = Cache(settings.cache or _usual_cache(), max_bytes=int(settings.cache_gb * 1e9))
        return RemoteStorage(RemoteStore(settings.store), cache)
    return LocalFolder(settings.store)


def watcher_of(settings: Settings) -> Watcher:
    """Returns what says when to look there."""
    if isinstance(settings.store, str):
        return Poller(poll_seconds=settings.poll_seconds)
    return FolderWatcher(settings.store, poll_seconds=settings.poll_seconds)


def _usual_cache() -> Path:
    """Returns where the XDG Base Directory Specification wants what can be fetched again."""
    home = os.path.expanduser("~")  # noqa: PTH111  a Path raises where nobody knows the home folder
    usual = tempfile.gettempdir() if home == "~" else f"{home}/.cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "flambeau"
