"""Makes label folders of small pictures, the same on every run: python3 pictures.py FOLDER LABELS IMAGES [alike]

Each label is a shape and a colour on a random background, each picture a variation in size, place and tint. Most are
JPEG of several qualities and chroma samplings, every eighth is PNG, and some carry an EXIF orientation. With `alike`
each label is a wave of its own angle and colour, and its pictures hardly differ: as those of one fixed camera.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

NAMES = ["gänseblümchen", "lily of the valley", "rose", "tulip"]


def field(random: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Random colours, `cells` across, bicubic between them: [height, width, 3]."""
    colours = random.integers(0, 256, size=(cells, cells, 3), dtype=np.uint8)
    resized = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=float)


def picture(label: int, index: int) -> Image.Image:
    random = np.random.default_rng([label, index])
    height, width = random.integers(90, 260, size=2)
    pixels = 0.7 * field(random, height, width, 3) + 0.3 * field(random, height, width, 12)
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    x -= x.max() / 2 + random.normal(0, 0.06)
    y -= y.max() / 2 + random.normal(0, 0.06)
    radius = np.hypot(x, y)
    angle = np.arctan2(y, x) + random.uniform(0, 6.3)
    size = random.uniform(0.25, 0.45)
    petals = radius < size * (0.6 + 0.4 * np.cos(12 * angle))
    stripes = (radius < size) & (np.sin(40 * x) > 0)
    rings = (radius < size) & (np.sin(60 * radius) > 0)
    rhombus = abs(x) + abs(y) < size
    shape = [petals, stripes, rings, rhombus][label]
    colour = 128 + 110 * np.sin(np.array([0.0, 2.1, 4.2]) + label * 1.1 + random.normal(0, 0.2, 3))
    pixels[shape] = 0.2 * pixels[shape] + 0.8 * colour
    pixels += random.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def alike(label: int, index: int) -> Image.Image:
    random = np.random.default_rng([label, index])
    height, width = random.integers(90, 260, size=2)
    y, x = np.mgrid[0:height, 0:width] / 100.0
    angle = label * 0.7 + random.normal(0, 0.08)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (12 + 6 * (label % 3)) + random.uniform(0, 6))
    phase = np.array([0.0, 2.1, 4.2]) + label * 1.1 + random.normal(0, 0.15, 3)
    pixels = 128 + 90 * np.sin(phase) + wave[..., None] * random.uniform(20, 50)
    pixels += random.normal(0, 6, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main(folder: str, labels: str, images: str, kind: str = "varied") -> None:
    for label in range(int(labels)):
        below = pathlib.Path(folder) / NAMES[label]
        below.mkdir(parents=True)
        for index in range(int(images)):
            made = alike(label, index) if kind == "alike" else picture(label, index)
            if index % 8 == 7:
                made.save(below / f"{index:03}.png")
                continue
            exif = Image.Exif()
            if index % 8 == 3:
                exif[0x0112] = 1 + index // 8 % 8
            made.save(
                below / f"{index:03}.jpg",
                quality=[70, 85, 95][index % 3],
                subsampling=[0, 1, 2][index // 3 % 3],
                progressive=index % 5 == 0,
                exif=exif,
            )


main(*sys.argv[1:])
