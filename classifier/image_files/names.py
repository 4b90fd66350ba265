"""Knows by their names which files are images, and which files and folders a system leaves beside them."""

import os
import re

_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
# Of folders and files, in lower case. What begins with a dot is passed over as well.
_SYSTEM_NAMES = {
    *("__macosx", "network trash folder", "temporary items", "resource.frk"),  # macOS
    *("$recycle.bin", "recycler", "system volume information", "lost.dir"),  # Windows, Android
    *("$windows.~bt", "$windows.~ws", "$winreagent", "msdownld.tmp"),  # Windows
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "~snapshot"),  # file servers
    *("@tmp", "@sharebin", "trashbox"),  # file servers
    *("lost+found", "__pycache__"),
    *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r"),
}
_CHECKED_DISK = re.compile(r"found\.\d{3}")  # Windows puts there what it found when it repaired a disk


def is_photo(name: str) -> bool:
    """Tells whether a file is called like an image."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES  # noqa: PTH122  a Path for each file takes ten times as long


def is_of_the_system(name: str) -> bool:
    """Tells whether a file or folder is one that a system, a file server or Python leaves, or hides."""
    lower = name.lower()
    return name.startswith(".") or lower in _SYSTEM_NAMES or _CHECKED_DISK.fullmatch(lower) is not None
