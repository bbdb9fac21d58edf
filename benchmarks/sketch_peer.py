"""Frequent Directions as a user writes it in PyTorch: a buffer of 2 ell rows, shrunk with an SVD when it is full."""

import json
import statistics
import time

import torch


class SvdSketch:
    """The buffer and its shrink."""

    def __init__(self, dimension: int, size: int) -> None:
        self.size = size
        self.buffer = torch.zeros(2 * size, dimension)
        self.filled = 0

    def update(self, rows: torch.Tensor) -> None:
        """Enters rows, as many as are free at a time."""
        while len(rows) > 0:
            if self.filled == len(self.buffer):
                self.shrink()
            count = min(len(rows), len(self.buffer) - self.filled)
            self.buffer[self.filled : self.filled + count] = rows[:count]
            self.filled += count
            rows = rows[count:]

    def shrink(self) -> None:
        """Takes the ell-th squared singular value from all of them: at most ell - 1 rows stay."""
        _, values, directions = torch.linalg.svd(self.buffer, full_matrices=False)
        kept = self.size - 1
        values = torch.sqrt(torch.clamp(values[:kept] ** 2 - values[kept] ** 2, min=0))
        self.buffer[:kept] = values[:, None] * directions[:kept]
        self.filled = kept


def measure(dimension: int, size: int, repeats: int) -> None:
    """Prints the seconds for a row, over whole shrinks."""
    torch.manual_seed(0)
    pool = torch.randn(size + 1, dimension)
    sketch = SvdSketch(dimension, size)
    sketch.update(pool[:size])
    sketch.update(pool)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        sketch.update(pool)
        seconds.append((time.perf_counter() - start) / (size + 1))
    print(json.dumps({
        "row": f"sketch svd D={dimension} ell={size}",
        "peer": "a buffer of 2 ell rows shrunk by torch.linalg.svd",
        "peer_seconds": statistics.median(seconds),
    }), flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        for dimension in (65000, 270000):
            measure(dimension, 64, repeats=3)
            measure(dimension, 256, repeats=1)
