"""Makes label folders of small pictures, the same on every run: python3 pictures.py FOLDER LABELS IMAGES

Each label is a pattern (its angle and its colours), each picture a variation of it in size, shift, contrast and noise.
Most are JPEG of several qualities and chroma samplings, every eighth is PNG, and some carry an EXIF orientation.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

NAMES = ["gänseblümchen", "lily of the valley", "rose", "tulip", "violet", "poppy"]


def picture(label: int, index: int) -> Image.Image:
    random = np.random.default_rng([label, index])
    height, width = random.integers(90, 260, size=2)
    y, x = np.mgrid[0:height, 0:width] / 100.0
    angle = label * 0.7 + random.normal(0, 0.08)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (12 + 6 * (label % 3)) + random.uniform(0, 6))
    disc = ((x - x.mean()) ** 2 + (y - y.mean()) ** 2) < 0.1 * (1 + label % 2)
    phase = np.array([0.0, 2.1, 4.2]) + label * 1.1 + random.normal(0, 0.15, 3)
    colour = 128 + 90 * np.sin(phase)
    pixels = colour + wave[..., None] * random.uniform(20, 50) + disc[..., None] * (60 * np.cos(phase))
    pixels += random.normal(0, 6, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main(folder: str, labels: str, images: str) -> None:
    for label in range(int(labels)):
        below = pathlib.Path(folder) / NAMES[label]
        below.mkdir(parents=True)
        for index in range(int(images)):
            made = picture(label, index)
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
