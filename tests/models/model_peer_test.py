"""The networks against torchvision's, and those that it has not against a definition in a few lines.

model_peer_test.py HELPER, where HELPER is the program built from model_peer.cpp.

torchvision's network gets weights that are neither its first ones nor zero anywhere; they go through a safetensors file.
Logits in eval mode are compared in float32; logits in training mode (batch statistics, no dropout), all gradients and
the running statistics in float64, where a wrong epsilon or momentum cannot hide. Then the first weights of both: means,
deviations and largest magnitudes of each parameter.
"""

import math
import pathlib
import subprocess
import sys
import tempfile

import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

HELPER = ""
CLASSES = 7


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


class Block(nn.Module):
    """A block of ResNeXt-29 (table 1 and figure 3 (c) of the paper, two times the grouped channels at the output)."""

    def __init__(self, inputs, inner, groups, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, 2 * inner, 1, bias=False), nn.BatchNorm2d(2 * inner)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != 2 * inner:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 2 * inner, 1, stride, bias=False), nn.BatchNorm2d(2 * inner)
            )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class ResNeXt29(nn.Module):
    def __init__(self, groups, group_width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 1, bias=False), nn.BatchNorm2d(64)
        inputs, inner = 64, groups * group_width
        for stage in range(3):
            blocks = []
            for block in range(3):
                blocks.append(Block(inputs, inner, groups, 2 if stage > 0 and block == 0 else 1))
                inputs = 2 * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inner *= 2
        self.fc = nn.Linear(inputs, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def with_small_stem(network):
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def transformer(size, patch, width, inner, heads):
    return torchvision.models.VisionTransformer(size, patch, 12, heads, width, inner, num_classes=CLASSES)


models = torchvision.models
# name, stem, side of the images, how torchvision makes it
CASES = [
    ("resnet18", "imagenet", 64, lambda: models.resnet18(num_classes=CLASSES)),
    ("resnet18", "cifar", 16, lambda: with_small_stem(models.resnet18(num_classes=CLASSES))),
    ("resnet34", "imagenet", 64, lambda: models.resnet34(num_classes=CLASSES)),
    ("resnet50", "imagenet", 64, lambda: models.resnet50(num_classes=CLASSES)),
    ("resnet50", "auto", 16, lambda: with_small_stem(models.resnet50(num_classes=CLASSES))),
    ("resnext50_32x4d", "auto", 96, lambda: models.resnext50_32x4d(num_classes=CLASSES)),
    ("mobilenet_v2", "auto", 64, lambda: models.mobilenet_v2(num_classes=CLASSES)),
    ("efficientnet_b0", "auto", 64, lambda: models.efficientnet_b0(num_classes=CLASSES)),
    ("vit_b_16", "auto", 32, lambda: models.vit_b_16(num_classes=CLASSES, image_size=32)),
    ("vit_tiny", "auto", 32, lambda: transformer(32, 4, 192, 768, 3)),
    ("vit_tiny", "auto", 64, lambda: transformer(64, 8, 192, 768, 3)),
    ("resnext29_32x4d", "auto", 16, lambda: ResNeXt29(32, 4)),
    ("resnext29_2x64d", "auto", 16, lambda: ResNeXt29(2, 64)),
]


def helper(verb, name, stem, folder):
    result = subprocess.run(
        [HELPER, verb, name, stem, str(CLASSES), str(folder)], capture_output=True, text=True, check=False
    )
    check(result.returncode == 0, f"{name}: {result.stderr}")
    return load_file(folder / "ours.safetensors")


def statistics(values):
    values = values.detach().double()
    return values.mean().item(), values.std(correction=0).item(), values.abs().max().item()


def compare_first_weights(name, network, ours):
    theirs = dict(network.named_parameters())
    check(list(theirs) == [key for key in theirs if key in ours], f"{name}: parameters {set(theirs) ^ set(ours)}")
    check(len(theirs) == len(ours), f"{name}: {set(ours) - set(theirs)} are not in the other")
    for key, values in theirs.items():
        count = values.numel()
        mean, deviation, largest = statistics(values)
        our_mean, our_deviation, our_largest = ours[key].tolist()
        where = f"{name}: {key}: {ours[key].tolist()} instead of {[mean, deviation, largest]}"
        if deviation == 0:
            check((our_mean, our_deviation) == (mean, 0), where)
            continue
        check(our_deviation > 0, where)
        if count < 100:
            continue
        check(abs(our_mean - mean) < 8 * deviation / math.sqrt(count), where)
        check(abs(our_deviation / deviation - 1) < 8 / math.sqrt(2 * count), where)
        # The law: the largest of so many is 1.73 deviations for a uniform one, and for a normal one below 2.4 in one of 10^7.
        check(count < 1000 or (our_largest > 2.4 * our_deviation) == (largest > 2.4 * deviation), where)


def disturb(network):
    with torch.no_grad():
        for parameter in network.parameters():
            scale = parameter.std() if parameter.numel() > 1 and parameter.std() > 0 else 1
            parameter.add_(0.1 * scale * torch.randn_like(parameter))
        for key, buffer in network.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn_like(buffer))
            if key.endswith("running_var"):
                buffer.copy_(0.7 + 0.6 * torch.rand_like(buffer))


def error(ours, theirs):
    """Relative to the norm."""
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-12)).item()


def compare_passes(name, network, batch, ours):
    network.eval()
    with torch.no_grad():
        logits = network(batch["images"])
    worst = (logits - ours["eval"]).abs().max().item()
    scale = logits.abs().max().item()
    check(logits.std() > 1e-2, f"{name}: the logits {logits} would hide an error")
    check(worst < 1e-4 * max(1, scale), f"{name}: logits in eval mode differ by {worst}")

    network.double().train()
    for module in network.modules():
        if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    logits = network(batch["images"].double())
    nn.functional.cross_entropy(logits, batch["labels"], reduction="sum").backward()
    in_training = error(ours["train"], logits)
    check(in_training < 1e-7, f"{name}: logits in training mode: {in_training}")
    of_gradients = 0.0
    largest = max(parameter.grad.norm().item() for parameter in network.parameters())
    for key, parameter in network.named_parameters():
        gradient = parameter.grad.contiguous().flatten()
        digest = torch.cat([gradient.norm().view(1), gradient[:256]])
        # A gradient that is zero but for rounding (biases before batch statistics, keys of an attention).
        if gradient.norm() < 1e-10 * largest:
            check(ours["gradient/" + key][0] < 1e-9 * largest, f"{name}: the gradient of {key} should vanish")
            continue
        one = error(ours["gradient/" + key], digest)
        check(one < 1e-6, f"{name}: the gradient of {key}: {one}")
        of_gradients = max(of_gradients, one)
    for key, buffer in network.named_buffers():
        one = error(ours["buffer/" + key], buffer)
        check(one < 1e-7, f"{name}: {key} after a step: {one}")
    return worst, in_training, of_gradients


def main():
    global HELPER
    HELPER = sys.argv[1]
    torch.manual_seed(5)
    torch.set_num_threads(2)
    for name, stem, side, make in CASES:
        network = make()
        batch = {"images": torch.randn(6, 3, side, side), "labels": torch.arange(6) % CLASSES}
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            save_file(batch, folder / "batch.safetensors")
            compare_first_weights(name, network, helper("fresh", name, stem, folder))
            disturb(network)
            save_file(network.state_dict(), folder / "weights.safetensors")
            worst, in_training, of_gradients = compare_passes(name, network, batch, helper("pass", name, stem, folder))
        print(
            f"{name} {stem} {side}: logits {worst:.1e} (eval, float32), {in_training:.1e} (training, float64), "
            f"gradients {of_gradients:.1e}",
            flush=True,
        )
    print("ok")


if __name__ == "__main__":
    main()
