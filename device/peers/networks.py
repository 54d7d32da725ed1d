"""Float ONNX files of well-known networks: torchvision's layers, random weights, input float32 `[1, 3, size, size]`.

BatchNorm has the statistics of generated pictures, so that activations keep a usual range, and is folded into the
convolutions by the exporter.
"""

import torch
import torchvision
from torch import nn

from pictures import pictures

OPSET = 13
PICTURES = 16


def convolution(inputs, outputs, kernel, stride, groups=1, activation=True):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if activation else nn.Sequential(*layers)


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, projection; added to the input where the shapes are equal."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        layers = [convolution(inputs, hidden, 1, 1)] if expansion != 1 else []
        layers.append(convolution(hidden, hidden, kernel, stride, groups=hidden))
        layers.append(convolution(hidden, outputs, 1, 1, activation=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features):
        result = self.layers(features)
        return features + result if self.residual else result


def efficientnet_lite0():
    """The layers of EfficientNet-Lite0, padded alike on both sides as PyTorch does."""
    # Blocks, channels, kernel, stride of the first block, expansion.
    stages = [
        (1, 16, 3, 1, 1),
        (2, 24, 3, 2, 6),
        (2, 40, 5, 2, 6),
        (3, 80, 3, 2, 6),
        (3, 112, 5, 1, 6),
        (4, 192, 5, 2, 6),
        (1, 320, 3, 1, 6),
    ]
    channels = 32
    layers = [convolution(3, channels, 3, 2)]
    for blocks, outputs, kernel, stride, expansion in stages:
        for block in range(blocks):
            layers.append(InvertedBottleneck(channels, outputs, kernel, stride if block == 0 else 1, expansion))
            channels = outputs
    layers += [convolution(channels, 1280, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers)


def inception_v3():
    return torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)


# Builder and side of the input picture.
NETWORKS = {
    "efficientnet_lite0": (efficientnet_lite0, 224),
    "inception_v3": (inception_v3, 299),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, 224),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, 224),
    "resnet18": (torchvision.models.resnet18, 224),
}


def export(name, output):
    """Writes the network `name` to the file `output`; input `input`, output `logits`."""
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.3)
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.from_numpy(pictures(PICTURES, size, size, seed=1)))
    torch.onnx.export(
        network.eval(),
        torch.zeros(1, 3, size, size),
        output,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamo=False,
    )
