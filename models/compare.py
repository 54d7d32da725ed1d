"""Backbones against PyTorch: both compute logits from the same random weights, BatchNorm statistics and input.

    python3 models/compare.py [NAME...]

Needs torch, torchvision, timm and safetensors, and `cargo build --release --workspace --example logits` before. Fails
where logits differ by more than 1e-4 of their largest.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4
IMAGES = 2
# Name in the registry: who builds it, under which name, height and width in pixels.
NETWORKS = {
    "efficientnet_lite0": (timm, "tf_efficientnet_lite0", 224),
    "efficientnet_lite3": (timm, "tf_efficientnet_lite3", 280),
    "efficientnet_lite4": (timm, "tf_efficientnet_lite4", 300),
    "mobilenetv2_050": (timm, "mobilenetv2_050", 224),
    "mobilenetv2_100": (timm, "mobilenetv2_100", 224),
    "mobilenetv2_110d": (timm, "mobilenetv2_110d", 224),
    "mobilenetv2_120d": (timm, "mobilenetv2_120d", 224),
    "mobilenetv2_140": (timm, "mobilenetv2_140", 224),
    "mobilenetv3_small_050": (timm, "mobilenetv3_small_050", 224),
    "mobilenetv3_small_075": (timm, "mobilenetv3_small_075", 224),
    "mobilenetv3_small_100": (timm, "mobilenetv3_small_100", 224),
    "mobilenetv3_large_100": (timm, "mobilenetv3_large_100", 224),
    "mobilenetv4_conv_small": (timm, "mobilenetv4_conv_small", 224),
    "resnet18": (torchvision, "resnet18", 224),
    "resnet50": (torchvision, "resnet50", 224),
    "inception_v3": (torchvision, "inception_v3", 299),
}
PROGRAM = (
    pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    / "release/examples/logits"
)


def network(library, name, size):
    """The network with random weights, for inference."""
    if library is timm:
        net = timm.create_model(name)
    elif name == "inception_v3":
        # The registry's normalisation holds what `transform_input` does.
        net = torchvision.models.inception_v3(init_weights=True, transform_input=False)
    else:
        net = torchvision.models.get_model(name)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            module.momentum = None
            module.reset_running_stats()
    # Statistics of what really passes keep activations from dying out or growing over the depth of the network.
    with torch.no_grad():
        net.train()(torch.randn(8, 3, size, size))
    return net.eval()


def main():
    failed = []
    for name in sys.argv[1:] or NETWORKS:
        library, their_name, size = NETWORKS[name]
        torch.manual_seed(0)
        net = network(library, their_name, size)
        inputs = torch.randn(IMAGES, 3, size, size)
        with torch.no_grad():
            theirs = net(inputs)
        with tempfile.TemporaryDirectory() as folder:
            weights, given, taken = (
                f"{folder}/{part}.safetensors" for part in ("weights", "input", "output")
            )
            save_file({k: v.contiguous() for k, v in net.state_dict().items()}, weights)
            save_file({"input": inputs}, given)
            subprocess.run([PROGRAM, name, weights, given, taken], check=True)
            ours = load_file(taken)["logits"]
        largest = theirs.abs().max().item()
        difference = (ours - theirs).abs().max().item() / largest
        print(f"{name:24} {difference:.1e} of the largest logit, {largest:.3g}", flush=True)
        if not difference <= TOLERANCE:
            failed.append(name)
    sys.exit(f"too far from PyTorch: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
