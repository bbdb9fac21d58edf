"""Training images of the data sets by example id, in the order in which the program counts them; and montages."""

from __future__ import annotations

import gzip
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

FOLDERS = {
    "digits": ["digits"],
    "mnist": ["mnist", "MNIST", "MNIST/raw"],
    "fashion_mnist": ["fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"],
    "cifar10": ["cifar-10-batches-bin", "cifar-10", "cifar10"],
    "cifar100": ["cifar-100-binary", "cifar-100", "cifar100", "cifar-100-subset"],
}
FIRST_FILE = {"digits": "digits.csv", "mnist": "train-images-idx3-ubyte", "fashion_mnist": "train-images-idx3-ubyte",
              "cifar10": "data_batch_1.bin", "cifar100": "train.bin"}


def read_bytes(folder: pathlib.Path, name: str) -> bytes | None:
    """A file, or the same compressed."""
    if (folder / name).is_file():
        return (folder / name).read_bytes()
    packed = folder / (name + ".gz")
    return gzip.decompress(packed.read_bytes()) if packed.is_file() else None


def find_folder(name: str, path: str) -> pathlib.Path | None:
    """Where the program finds the data set `name`: `path` (data.path) or below it, SAGE_DATA_DIR, the user's cache."""
    if name not in FOLDERS:
        return None
    above = [pathlib.Path(path)] if path else []
    if not path and os.environ.get("SAGE_DATA_DIR"):
        above.append(pathlib.Path(os.environ["SAGE_DATA_DIR"]))
    if not path:
        above.append(pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "sage" / "data")
    places = ([pathlib.Path(path)] if path else []) + [place / folder for place in above for folder in FOLDERS[name]]
    for place in places:
        if (place / FIRST_FILE[name]).is_file() or (place / (FIRST_FILE[name] + ".gz")).is_file():
            return place
    return None


def train_images(name: str, folder: pathlib.Path) -> np.ndarray:
    """uint8 [N, H, W] (grey) or [N, H, W, 3]; row = example id."""
    if name == "digits":
        text = read_bytes(folder, "digits.csv") or b""
        rows = np.loadtxt(text.decode().splitlines(), delimiter=",", dtype=np.int64)
        train = rows[np.arange(len(rows)) % 5 != 0]
        return (train[:, :64] * 15).astype(np.uint8).reshape(-1, 8, 8)
    if name in ("mnist", "fashion_mnist"):
        data = np.frombuffer(read_bytes(folder, "train-images-idx3-ubyte") or b"", dtype=np.uint8)
        count, height, width = np.frombuffer(data[4:16].tobytes(), dtype=">i4")
        return data[16:].reshape(count, height, width)
    labels = 1 if name == "cifar10" else 2
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] if name == "cifar10" else ["train.bin"]
    parts = [part for file in files if (part := read_bytes(folder, file)) is not None]
    records = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, labels + 3072)
    return records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def montage(images: np.ndarray, ids: Sequence[int], titles: Sequence[str], title: str, columns: int = 12) -> Figure:
    """Examples `ids` in rows of `columns`, each with a line of text above it."""
    rows = -(-len(ids) // columns)
    figure = Figure(figsize=(0.95 * columns, 1.15 * rows + 0.45), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, example, text in zip(axes.flat, ids, titles, strict=False):
        axis.imshow(images[example], cmap="gray", interpolation="nearest")
        axis.set_title(text, fontsize=7, pad=2)
    figure.suptitle(title, fontsize=10)
    return figure
