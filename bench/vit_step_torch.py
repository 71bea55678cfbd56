"""The step of vit_step.c in PyTorch, as open_clip builds the image tower and the
method's authors train it: prints one JSON object in the same form.

    python3 bench/vit_step_torch.py MODEL.json|NAME BATCH REPEATS [train|forward]
"""

import json
import resource
import statistics
import sys
import time

import torch
from torch import nn

SIZES = {  # image, patch, width, layers, embed; heads of 64
    "ViT-B-32": (224, 32, 768, 12, 512),
    "ViT-B-16": (224, 16, 768, 12, 512),
    "ViT-L-14": (224, 14, 1024, 24, 768),
}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(),
                                 nn.Linear(4 * width, width))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    def __init__(self, image, patch, width, layers, embed, head_width=64):
        super().__init__()
        tokens = (image // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.cls = nn.Parameter(width ** -0.5 * torch.randn(width))
        self.pos = nn.Parameter(width ** -0.5 * torch.randn(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, width // head_width)
                                    for _ in range(layers))
        self.proj = nn.Parameter(width ** -0.5 * torch.randn(width, embed))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        cls = self.cls.expand(x.shape[0], 1, -1)
        x = self.ln_pre(torch.cat([cls, x], 1) + self.pos)
        x = x.transpose(0, 1)  # nn.MultiheadAttention's order
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x[0]) @ self.proj


def size_of(model):
    """image, patch, width, layers, embed, head width, of a name or a file."""
    if not str(model).endswith(".json"):
        return *SIZES[model], 64
    with open(model, encoding="utf-8") as file:
        config = json.load(file)
    vision = config["vision_cfg"]
    return (vision["image_size"], vision["patch_size"], vision["width"],
            vision["layers"], config["embed_dim"],
            vision.get("head_width", 64))


def main():
    model, batch, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    what = sys.argv[4] if len(sys.argv) > 4 else "train"
    size = size_of(model)
    torch.manual_seed(0)
    tower = Tower(*size)
    head = torch.randn(100, size[4])
    images = torch.randn(batch, 3, size[0], size[0])
    labels = torch.arange(batch) % 100
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-6,
                                  weight_decay=0.1)

    def train():
        features = tower(images)
        logits = features / features.norm(dim=-1, keepdim=True) @ head.t()
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        loss.item()

    def forward():
        with torch.no_grad():
            tower.eval()
            tower(images)

    step = {"train": train, "forward": forward}[what]
    step()
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step()
        spent.append(time.perf_counter() - begin)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20
    print(json.dumps({
        "model": model, "batch": batch, "n_threads": torch.get_num_threads(),
        f"{what}_images_per_s": batch / statistics.median(spent),
        "max_rss_gib": round(rss, 2), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
