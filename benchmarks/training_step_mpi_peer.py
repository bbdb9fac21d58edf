"""CPU and wall time for an image of data-parallel training with PyTorch's DistributedDataParallel on gloo, one thread a
process, global batch 128: the peer of training_step_mpi.cpp. Starts itself under torchrun with BENCHMARK_RANKS processes
(2). Without synchronised batch statistics, which PyTorch has on GPUs only."""

import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from resnet20 import ResNet20

BATCH, STEPS, ROUNDS = 128, 4, 5


def cpu_seconds() -> float:
    """Of this process, all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ranks, rank = dist.get_world_size(), dist.get_rank()
    torch.manual_seed(rank)
    network = DistributedDataParallel(
        ResNet20().to(memory_format=torch.channels_last), gradient_as_bucket_view=True, broadcast_buffers=False
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(BATCH // ranks, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH // ranks,))
    wall, cpu = [], []
    for round_number in range(-1, ROUNDS):
        dist.barrier()
        start, start_cpu = time.perf_counter(), cpu_seconds()
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        taken, spent = time.perf_counter() - start, torch.tensor(cpu_seconds() - start_cpu)
        dist.all_reduce(spent)
        if round_number >= 0:
            wall.append(taken / (STEPS * BATCH))
            cpu.append(spent.item() / (STEPS * BATCH))
    if rank == 0:
        peer = f"torchrun, DistributedDataParallel on gloo, {ranks} processes"
        for what, values in (("cpu", cpu), ("wall", wall)):
            print(json.dumps({"row": f"training {what} ranks={ranks}", "peer": peer,
                              "peer_seconds": statistics.median(values)}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main()
    else:
        count = os.environ.get("BENCHMARK_RANKS", "2")
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--standalone",
                                  f"--nproc_per_node={count}", os.path.abspath(__file__)])
