"""Seconds of a training step in PyTorch eager: the same network, batch, memory format and threads as training_step.cpp."""

import contextlib
import json
import statistics
import time

import torch
from torch.nn import functional

from resnet20 import ResNet20


def measure(precision: str, repeats: int = 6) -> None:
    """Prints the median seconds of one step."""
    torch.manual_seed(0)
    network = ResNet20().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (128,))
    seconds, cpu = [], []
    for repeat in range(repeats + 3):
        start, start_cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        with autocast:
            loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        if repeat >= 3:
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    print(json.dumps({
        "row": f"training step {precision}",
        "peer": "PyTorch eager, channels_last, fused SGD",
        "peer_seconds": statistics.median(seconds),
        "note": f"the peer's CPU time {statistics.median(cpu):.3f} s",
    }), flush=True)


if __name__ == "__main__":
    for name in ("float32", "bf16"):
        measure(name)
