"""The photos of decoding.cpp, which ran just before, decoded and resized by PIL with one thread."""

import io
import json
import pathlib
import statistics
import tempfile
import time

from PIL import Image


def view(data: bytes, side: int) -> bytes:
    """torchvision's Resize and CenterCrop, and planes; a large photo is decoded at a half, as there."""
    image = Image.open(io.BytesIO(data))
    if image.size[0] > 1000:
        image.draft("RGB", (image.size[0] // 2, image.size[1] // 2))
    image = image.convert("RGB")
    if image.size != (side, side):
        shorter = round(side * 256 / 224)
        width, height = image.size
        size = (shorter * width // height, shorter) if height <= width else (shorter, shorter * height // width)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return b"".join(plane.tobytes() for plane in image.split())


def measure(name: str, what: str, action, count: int) -> None:
    seconds = []
    for repeat in range(6):
        start = time.perf_counter()
        for _ in range(count):
            action()
        if repeat > 0:
            seconds.append((time.perf_counter() - start) / count)
    print(json.dumps({"row": f"{what} {name}", "peer": "PIL", "peer_seconds": statistics.median(seconds)}), flush=True)


if __name__ == "__main__":
    for photo, side, repeats in (("64x64", 64, 40), ("375x500", 224, 40), ("1536x2048", 224, 5)):
        content = (pathlib.Path(tempfile.gettempdir()) / f"sage_decoding_{photo}.jpg").read_bytes()
        measure(photo, "decode", lambda content=content: Image.open(io.BytesIO(content)).convert("RGB"), repeats)
        measure(photo, "view", lambda content=content, side=side: view(content, side), repeats)
