"""Pictures that nobody took: smooth noise whose brightness, colour and detail differ from one to the next."""

import numpy


def pictures(count, height, width, seed=0):
    """`count` normalised pictures, float32 `[count, 3, height, width]`, about -2.5 to 2.5."""
    random = numpy.random.default_rng(seed)
    result = 0.7 * random.standard_normal((count, 3, 1, 1))
    for cell in (75, 25, 8, 3, 1):
        rows, columns = -(-height // cell), -(-width // cell)
        noise = 0.6 * random.standard_normal((count, 3, rows, columns))
        result = result + noise.repeat(cell, axis=2).repeat(cell, axis=3)[:, :, :height, :width]
    return result.clip(-2.5, 2.5).astype(numpy.float32)
