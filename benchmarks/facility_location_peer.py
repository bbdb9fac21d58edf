"""Lazy greedy facility location as a user writes it in NumPy: a heap of upper bounds, gains by whole columns."""

import heapq
import json
import os
import statistics
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402


def similarity_of(points: np.ndarray) -> np.ndarray:
    """max(D) - D of the Euclidean distances."""
    distance = np.sqrt(((points[:, None, :] - points[None, :, :]) ** 2).sum(2))
    return distance.max() - distance


def lazy_greedy(similarity: np.ndarray, size: int) -> tuple[list[int], np.ndarray]:
    """Positions in the order of choice, and the number of points that each stands for."""
    best = np.zeros(len(similarity), dtype=similarity.dtype)
    heap = [(-gain, candidate, 0) for candidate, gain in enumerate(similarity.sum(1))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < size:
        _, candidate, counted = heapq.heappop(heap)
        if counted == len(chosen):
            best = np.maximum(best, similarity[candidate])
            chosen.append(candidate)
        else:
            gain = np.maximum(similarity[candidate] - best, 0).sum()
            heapq.heappush(heap, (-gain, candidate, len(chosen)))
    owner = similarity[chosen].argmax(0)
    return chosen, np.bincount(owner, minlength=size)


def main() -> None:
    """Prints the medians of both rows of facility_location.cpp."""
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((500, 10), dtype=np.float32)
    residuals = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def by_class() -> None:
        for c in range(10):
            lazy_greedy(similarity_of(residuals[50 * c : 50 * (c + 1)]), 13 if c < 8 else 12)

    def at_once() -> None:
        lazy_greedy(similarity_of(residuals), 128)

    for row, action in (("facility location, 10 classes of 50", by_class), ("facility location, one class of 500", at_once)):
        seconds = []
        for repeat in range(11):
            start = time.perf_counter()
            action()
            if repeat > 0:
                seconds.append(time.perf_counter() - start)
        print(json.dumps({"row": row, "peer": "lazy greedy in NumPy", "peer_seconds": statistics.median(seconds)}), flush=True)


if __name__ == "__main__":
    main()
