"""How images are scored, as data: without torch, so that it can be checked and sent before torch is there."""

from dataclasses import dataclass

# Packages whose versions decide the numbers in rows.
DECIDING = ("flambeau", "torch", "pillow", "numpy")


@dataclass(frozen=True, slots=True)
class Setup:
    """Says how images are scored. It can be sent to another process.

    Args:
        top_k: how many of the likeliest classes a row has.
        max_pixels: how many one image may have.
        draft: large JPEGs are decoded smaller, as `--jpeg-draft` of the server has it.
        batch: how many images are computed at once.
    """

    version: int
    top_k: int
    device: str
    precision: str
    max_pixels: int
    draft: bool
    compiled: bool
    batch: int
