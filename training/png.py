"""An image as a PNG file in memory."""

import io

from PIL import Image


def png(image: Image.Image) -> bytes:
    """Returns the content of a PNG file that holds `image`."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
