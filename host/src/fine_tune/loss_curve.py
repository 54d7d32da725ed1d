"""The loss curve that the test in `loss_curve.rs` holds: 20 steps in PyTorch on weights and batches made by a formula.

    python3 -m venv venv && venv/bin/pip install torch && venv/bin/python host/src/fine_tune/loss_curve.py
"""

import math

import torch
from torch import nn


def values(seed, shape, low, high):
    """Numbers that Rust makes too: the fraction of a large sine."""
    count = math.prod(shape)
    numbers = [math.sin(index * 12.9898 + seed * 78.233) * 43758.5453 for index in range(count)]
    fractions = [number - math.floor(number) for number in numbers]
    return torch.tensor([low + (high - low) * f for f in fractions], dtype=torch.float32).reshape(shape)


class Unit(nn.Sequential):
    """Convolution, BatchNorm, activation; padding (left, right, top, bottom) apart because it may be lopsided."""

    def __init__(self, seed, inputs, outputs, kernel, stride, padding, groups, activation):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        norm = nn.BatchNorm2d(outputs, eps=1e-3)
        bound = math.sqrt(3 / (inputs // groups * kernel * kernel))
        conv.weight.data = values(seed, conv.weight.shape, -bound, bound)
        norm.weight.data = values(seed + 1, norm.weight.shape, 0.5, 1.5)
        norm.bias.data = values(seed + 2, norm.bias.shape, -0.5, 0.5)
        super().__init__(nn.ZeroPad2d(padding), conv, norm, activation)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        relu6, relu, none = nn.ReLU6(), nn.ReLU(), nn.Identity()
        self.stem = Unit(10, 3, 8, 3, 2, (0, 1, 0, 1), 1, relu6)
        self.expand = Unit(20, 8, 24, 1, 1, (0, 0, 0, 0), 1, relu6)
        self.depthwise = Unit(30, 24, 24, 3, 1, (1, 1, 1, 1), 24, relu6)
        self.project = Unit(40, 24, 8, 1, 1, (0, 0, 0, 0), 1, none)
        self.dense = Unit(50, 8, 16, 3, 2, (1, 1, 1, 1), 1, relu)
        self.wide = Unit(60, 16, 16, 5, 2, (1, 2, 1, 2), 16, relu6)
        self.head = Unit(70, 16, 32, 1, 1, (0, 0, 0, 0), 1, relu6)
        self.linear = nn.Linear(32, 5)
        self.linear.weight.data = values(80, (5, 32), -0.2, 0.2)
        self.linear.bias.data = values(81, (5,), -0.1, 0.1)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        x = self.head(self.wide(self.dense(x)))
        return self.linear(x.mean((2, 3)))


def batch(step):
    return values(1000 + step, (6, 3, 18, 18), -1, 1), torch.tensor([(3 * step + 2 * image) % 5 for image in range(6)])


for name, make in {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
}.items():
    net = Net()
    decayed = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    optimizer = make([{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}])
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    losses = []
    for step in range(20):
        x, y = batch(step)
        loss = loss_fn(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        if name == "adamw" and step == 0:
            norms = {n: p.grad.norm().item() for n, p in net.named_parameters()}
            print("gradient norms", [f"{norm:.6f}" for norm in norms.values()])
        optimizer.step()
        losses.append(round(loss.item(), 6))
    print(name, losses)
    print(name, "running mean of the head", [round(v, 6) for v in net.head[2].running_mean[:4].tolist()])
