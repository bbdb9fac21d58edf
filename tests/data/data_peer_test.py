"""Decoding, resizing and RandAugment against PIL and torchvision, on synthetic pictures and, where they are found, on
real photos. data_peer_test.py HELPER, where HELPER is the program built from peer_program.cpp.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

OPERATIONS = ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
              "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"]  # fmt: skip
STRENGTHS = {
    "ShearX": [0.09, -0.3, 0.171], "ShearY": [0.3, -0.09], "TranslateX": [13, -40], "TranslateY": [-7, 31],
    "Rotate": [9.0, -30.0, 17.3, 0.0], "Brightness": [0.27, -0.9, 0.9], "Color": [0.27, -0.9, 0.9],
    "Contrast": [-0.27, 0.9, -0.9], "Sharpness": [0.27, -0.9, 0.9], "Posterize": [7, 4, 8, 5],
    "Solarize": [178.5, 0.0, 255.0],
}  # fmt: skip


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


class Peer:
    """Gathers commands for the helper, runs them all at once, then compares."""

    def __init__(self, helper, folder):
        self.helper, self.folder, self.lines, self.expected = helper, folder, [], []

    def add(self, what, expected, most, mean, *words):
        """`most`: largest difference of a value; `mean`: of the mean of all differences."""
        out = self.folder / f"out_{len(self.lines)}"
        self.lines.append("\t".join(map(str, [*words, out])))
        self.expected.append((what, np.asarray(expected), most, mean, out))

    def run(self):
        result = subprocess.run([self.helper], input="\n".join(self.lines), text=True, capture_output=True, check=False)
        check(result.returncode == 0, result.stderr)
        worst = {}
        for what, expected, most, mean, out in self.expected:
            size, _, pixels = out.read_bytes().partition(b"\n")
            got = np.frombuffer(pixels, np.uint8)
            check(got.size == expected.size, f"{what}: {size.decode()}, {got.size} values for {expected.shape}")
            difference = np.abs(got.astype(int) - expected.reshape(-1).astype(int))
            check(difference.max() <= most, f"{what}: a difference of {difference.max()}, at most {most} is allowed")
            check(difference.mean() <= mean, f"{what}: a mean difference of {difference.mean():.3f}")
            kind = what.split()[0]
            old = worst.get(kind, (0, 0, 0.0))
            worst[kind] = (old[0] + 1, max(old[1], difference.max()), max(old[2], difference.mean()))
        for kind, (count, most, mean) in worst.items():
            print(f"{kind}: {count} comparisons, largest difference {most}, largest mean difference {mean:.4f}")


def pictures(folder):
    """Synthetic ones of every kind that there is, then real photos."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0:93, 0:121]
    smooth = np.stack([127 + 100 * np.sin(x / 9 + c) * np.cos(y / (7 + c)) for c in range(4)], 2)
    pixels = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    rgb = Image.fromarray(pixels[:, :, :3])
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "rgb.jpg": (rgb, {"quality": 90}),
        "full.jpg": (rgb, {"quality": 95, "subsampling": 0}),
        "progressive.jpg": (rgb, {"quality": 90, "progressive": True}),
        "grey.jpg": (rgb.convert("L"), {"quality": 90}),
        "cmyk.jpg": (Image.fromarray(pixels, "CMYK"), {"quality": 90}),
        "turned.jpg": (rgb, {"quality": 90, "exif": exif}),
        "rgb.png": (rgb, {}),
        "grey.png": (rgb.convert("L"), {}),
        "palette.png": (rgb.quantize(64), {}),
        "bits.png": (rgb.convert("1"), {}),
        "alpha.png": (Image.fromarray(pixels, "RGBA"), {}),
        "turned.png": (rgb, {"exif": exif}),
    }
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
        yield folder / name
    homes = [os.environ.get("SAGE_DATA_DIR"), pathlib.Path.home() / ".cache/sage/data"]
    for home in filter(None, homes):
        real = sorted((pathlib.Path(home) / "hymenoptera-30").glob("train/*/*.jpg"))[:8]
        yield from real
        if real:
            return


def upright_rgb(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def main(helper):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        peer = Peer(helper, folder)
        for path in pictures(folder):
            image = upright_rgb(path)
            # The decoders are two versions of libjpeg-turbo; CMYK is converted with one rounding more or less.
            peer.add(f"decode {path.name}", image, 2, 0.1, "decode", path, 1)
            for side in (64, 224):
                shorter = round(side * 256 / 224)
                view = F.center_crop(F.resize(image, shorter, InterpolationMode.BILINEAR, antialias=True), side)
                peer.add(f"view {path.name} {side}", np.asarray(view).transpose(2, 0, 1), 2, 0.1, "view", path, side)
        source = upright_rgb(folder / "rgb.png")
        width, height = source.size
        (folder / "raw").write_bytes(source.tobytes())
        (folder / "planes").write_bytes(np.asarray(source).transpose(2, 0, 1).tobytes())
        for y, x, h, w, to_h, to_w in [(0, 0, height, width, 32, 32), (5, 9, 41, 60, 64, 64), (0, 0, 7, 110, 32, 48),
                                       (30, 30, 1, 1, 8, 8), (10, 0, 50, 121, 50, 40)]:  # fmt: skip
            expected = F.resized_crop(source, y, x, h, w, [to_h, to_w], InterpolationMode.BILINEAR, antialias=True)
            peer.add("resize", expected, 0, 0, "resize", folder / "raw", height, width, y, x, h, w, to_h, to_w)
            tensor = F.pil_to_tensor(source)
            tensor = F.resized_crop(tensor, y, x, h, w, [to_h, to_w], InterpolationMode.BILINEAR, antialias=True)
            peer.add("resize-of-tensors", tensor.permute(1, 2, 0), 1, 0.5, "resize", folder / "raw", height, width, y,
                     x, h, w, to_h, to_w)  # fmt: skip
        for number, operation in enumerate(OPERATIONS):
            for strength in STRENGTHS.get(operation, [0.0]):
                expected = _apply_op(source, operation, strength, InterpolationMode.NEAREST, None)
                peer.add(f"{operation} {strength}", np.asarray(expected).transpose(2, 0, 1), 0, 0, "change",
                         folder / "planes", height, width, number, strength)  # fmt: skip
        peer.run()


if __name__ == "__main__":
    main(sys.argv[1])
