"""Losses of 20 steps with PyTorch's DistributedDataParallel on gloo, 2 processes; compared with the losses that
ddp_losses.cpp prints for the same weights and data.

Usage: ddp_gloo_reference.py COMMAND...   where the command runs the C++ program under mpirun with 2 ranks.
Exit status 0 if all losses agree to 1e-4, relative.
"""

import os
import socket
import subprocess
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS, BATCH, CLASSES, STEPS = 2, 8, 4, 20


def wave(shape, phase, scale):
    count = 1
    for n in shape:
        count *= n
    values = torch.sin(torch.arange(count, dtype=torch.float64) * 0.7 + phase) * scale
    return values.reshape(shape).to(torch.float32)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = torch.nn.Linear(16, CLASSES)
        scales = [0.3, 0.1, 0.2, 0.1, 0.4, 0.1]
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(wave(parameter.shape, 0.1 * (i + 1), scales[i]))

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.fc(x.mean(dim=(2, 3)))


def train(rank, port, queue):
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    net = torch.nn.parallel.DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for step in range(STEPS):
        first = (step * RANKS + rank) * BATCH
        images = wave((BATCH, 3, 8, 8), float(first), 1.0)
        labels = (torch.arange(BATCH) + first) % CLASSES
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / RANKS)
    if rank == 0:
        queue.put(losses)
    dist.barrier()
    dist.destroy_process_group()


def reference_losses():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [context.Process(target=train, args=(rank, port, queue)) for rank in range(RANKS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode != 0 for worker in workers):
        sys.exit("the reference run failed")
    return queue.get()


def main():
    reference = reference_losses()
    run = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"the program ended with status {run.returncode}")
    ours = [float(line) for line in run.stdout.split()]
    if len(ours) != STEPS:
        sys.exit(f"the program printed {len(ours)} losses, expected {STEPS}")
    worst = 0.0
    for step, (expected, got) in enumerate(zip(reference, ours)):
        difference = abs(got - expected) / abs(expected)
        worst = max(worst, difference)
        print(f"step {step:2d}  PyTorch DDP {expected:.7f}  ours {got:.7f}  relative difference {difference:.1e}")
    print(f"largest relative difference {worst:.1e}")
    if not worst <= 1e-4:
        sys.exit("the losses differ by more than 1e-4")
    if not reference[-1] < reference[0]:
        sys.exit("the reference did not learn, so the comparison shows little")


if __name__ == "__main__":
    main()
