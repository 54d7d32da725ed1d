"""Makes a picture of every kind that is read, and some that are refused: python3 kinds.py FOLDER

Each picture that is read has its pixels as Pillow sees them beside it, in `seen/<name>.ppm`: turned as its orientation
says, transparent parts on white.
"""

import io
import pathlib
import struct
import sys

import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 61, 43


def scene() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], axis=-1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def seen(file: pathlib.Path) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(file))
    if image.mode == "I;16":
        # To the nearest; Pillow would cut off.
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def main(folder: str) -> None:
    folder = pathlib.Path(folder)
    (folder / "seen").mkdir(parents=True)
    rgb = scene()
    grey = rgb.convert("L")
    alpha = Image.fromarray(np.tile(np.arange(WIDTH, dtype=np.uint8) * 4, (HEIGHT, 1)))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    grey_alpha = grey.copy()
    grey_alpha.putalpha(alpha)
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 250)
    palette = rgb.quantize(64)
    cmyk = rgb.convert("CMYK")
    bits = grey.convert("1")
    dark = rgb.point(lambda value: value // 2)

    def save(image: Image.Image, name: str, **settings: object) -> None:
        image.save(folder / name, **settings)

    save(rgb, "baseline.jpg", quality=90, subsampling=0)
    save(rgb, "420.jpg", quality=90, subsampling=2)
    save(rgb, "progressive.jpg", quality=90, progressive=True)
    save(rgb, "restart.jpg", quality=90, restart_marker_blocks=3)
    save(grey, "grey.jpg", quality=90)
    save(cmyk, "cmyk.jpg", quality=90, subsampling=0)
    ycck = (folder / "cmyk.jpg").read_bytes()
    transform = ycck.index(b"Adobe") + 11
    (folder / "ycck.jpg").write_bytes(ycck[:transform] + b"\2" + ycck[transform + 1 :])

    for name, image in {
        "rgb": rgb, "grey": grey, "rgba": rgba, "grey_alpha": grey_alpha, "palette": palette, "1bit": bits, "16bit": wide,
    }.items():  # fmt: skip
        save(image, f"{name}.png")
    save(palette, "clear.png", transparency=3)
    save(palette, "4bit.png", bits=4)

    save(rgb, "lossy.webp", quality=90)
    save(rgba, "lossy_alpha.webp", quality=90)
    save(rgb, "lossless.webp", lossless=True)
    save(rgba, "lossless_alpha.webp", lossless=True, exact=True)
    save(rgb, "animated.webp", save_all=True, append_images=[dark], lossless=True)

    for name, image in {"rgb": rgb, "rgba": rgba, "grey": grey, "palette": palette, "1bit": bits}.items():
        save(image, f"{name}.bmp")

    save(palette, "palette.gif")
    save(palette, "clear.gif", transparency=3)
    save(palette, "animated.gif", save_all=True, append_images=[dark.quantize(64)])
    save(palette, "interlaced.gif", interlace=1)

    for name, image in {"rgb": rgb, "rgba": rgba, "grey": grey, "cmyk": cmyk, "1bit": bits, "16bit": wide}.items():
        save(image, f"{name}.tif")
    for compression in ["packbits", "tiff_lzw", "tiff_adobe_deflate"]:
        save(rgb, f"{compression}.tif", compression=compression)
    save(bits, "group4.tif", compression="group4")
    save(rgb, "pages.tif", save_all=True, append_images=[dark])

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(rgb, f"turned{orientation}.jpg", quality=95, subsampling=0, exif=exif)
        save(rgb, f"turned{orientation}.png", exif=exif)
        save(rgb, f"turned{orientation}.webp", lossless=True, exif=exif)
        save(rgb, f"turned{orientation}.tif", tiffinfo={0x0112: orientation})
    # Content counts, not the name.
    save(rgb, "png.jpg", format="PNG")
    save(rgb, "webp.txt", format="WEBP", lossless=True)
    for file in sorted(folder.glob("*.*")):
        seen(file).save(folder / "seen" / f"{file.name}.ppm")

    def refused(name: str, content: bytes) -> None:
        (folder / f"refused_{name}").write_bytes(content)

    def tiff(tag: int, kind: int, value: int) -> bytes:
        return b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, tag, kind, 1, value, 0)

    refused("empty.jpg", b"")
    refused("text.jpg", b"no picture")
    for name, brand in {"photo.heic": b"heic", "photo.avif": b"avif", "photo.cr3": b"crx ", "clip.mp4": b"isom"}.items():
        refused(name, b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0")
    refused("photo.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(8))
    refused("photo.dng", tiff(50706, 1, 0x0401))
    refused("photo.nef", tiff(254, 4, 1))
    refused("photo.arw", tiff(259, 3, 32767))
    refused("drawing.svg", b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>")
    refused("page.jpg", b"<!doctype html><title>404</title>")
    jpeg = io.BytesIO()
    rgb.save(jpeg, format="TIFF", compression="jpeg")
    refused("jpeg.tif", jpeg.getvalue())
    refused("huge.bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 65500, 65500, 1, 24, 0, 0, 0, 0, 0, 0))
    refused("huge.gif", b"GIF89a" + struct.pack("<HH", 65500, 65500) + b"\x80\0\0" + bytes(6) + b"," + bytes(9) + b"\2\0;")
    for name in ["baseline.jpg", "rgb.png", "lossy.webp", "palette.gif", "rgb.bmp", "tiff_lzw.tif"]:
        whole = (folder / name).read_bytes()
        refused(f"cut_{name}", whole[: len(whole) // 2])


main(sys.argv[1])
