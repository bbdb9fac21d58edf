"""The gradients of per_example_gradients.cpp by torch.func.vmap(grad): ResNet-20 in eval mode, 64 images, all
parameters, as one [64, ...] tensor per parameter."""

import json
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions; where the shape changes, every second pixel and zeros for new channels (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new = outputs - inputs

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        shortcut = images
        if self.stride > 1 or self.new > 0:
            before = self.new // 2
            kept = images[:, :, ::self.stride, ::self.stride]
            shortcut = functional.pad(kept, (0, 0, 0, 0, before, self.new - before))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet20(nn.Module):
    """He et al., "Deep residual learning for image recognition", section 4.2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        channels = 16
        for stage in range(3):
            for block in range(3):
                outputs = 16 << stage
                blocks.append(Block(channels, outputs, 2 if stage > 0 and block == 0 else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(functional.relu(self.bn1(self.conv1(images)))).mean((2, 3)))


def main() -> None:
    torch.manual_seed(0)
    model = ResNet20().eval()
    images = torch.randn(64, 3, 32, 32)
    labels = torch.randint(10, (64,))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, (values, buffers), (image[None],))
        return functional.cross_entropy(logits, label[None])

    per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def ordinary() -> None:
        model.zero_grad()
        functional.cross_entropy(model(images), labels).backward()

    seconds: dict[str, list[float]] = {"vmap": [], "ordinary": []}
    for repeat in range(8):
        for name, action in (("vmap", lambda: per_example(parameters, images, labels)), ("ordinary", ordinary)):
            start = time.perf_counter()
            action()
            if repeat > 0:
                seconds[name].append(time.perf_counter() - start)
    vmap, forward_backward = (statistics.median(seconds[name]) for name in ("vmap", "ordinary"))
    print(json.dumps({
        "row": "per-example gradients, as rows",
        "peer": "torch.func.vmap(grad)",
        "peer_seconds": vmap,
        "note": f"vmap(grad) takes {vmap / forward_backward:.2f} of PyTorch's own forward and backward",
    }), flush=True)


if __name__ == "__main__":
    main()
