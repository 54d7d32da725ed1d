"""PyTorch's side of the training step's benchmark: `training_step.sh` runs it in turns with ours.

    training_step.py BACKBONE SIZE BATCH STEPS THREADS     seconds of each step, one a line
"""

import sys
import time

import torch

name, size, batch, steps, threads = sys.argv[1], *map(int, sys.argv[2:6])
torch.set_num_threads(threads)
torch.manual_seed(0)
if name == "efficientnet_lite0":
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net._fc = torch.nn.Linear(1280, 10)
else:
    import torchvision

    net = {"resnet18": torchvision.models.resnet18, "mobilenet_v2": torchvision.models.mobilenet_v2}[name](num_classes=10)
net = net.to(memory_format=torch.channels_last).train()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.02)
loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
y = torch.arange(batch) % 10
for _ in range(steps):
    start = time.perf_counter()
    loss = loss_fn(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(time.perf_counter() - start, flush=True)
