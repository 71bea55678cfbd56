"""A training step in PyTorch, with everything that makes it fast there, beside
ours: rounds of both in turn, on the same card.

    gpu_step_torch.py MODEL BATCH PRECISION ROUNDS STEPS -- OURS...

The tower of bench/vit_step_torch.py with scaled_dot_product_attention, through
torch.compile; bf16 autocast or tf32 products; fused AdamW; the gradient's norm
clipped. OURS is a command that prints one JSON line with its own medians. Prints
a JSON object a round and program. On a machine without PyTorch or a GPU only
OURS runs, and a line says why.
"""

import json
import statistics
import subprocess
import sys
import time

try:
    import torch
    from torch import nn
    WHY_NOT = None if torch.cuda.is_available() else "PyTorch sees no GPU"
except ImportError as error:
    torch, WHY_NOT = None, str(error)


def sizes_of(model):
    """image, patch, width, layers, embed, as vit_step_torch.py has them."""
    from vit_step_torch import SIZES
    return SIZES[model]


def make_tower(model):
    image, patch, width, layers, embed = sizes_of(model)
    heads = width // 64

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)
            self.up = nn.Linear(width, 4 * width)
            self.down = nn.Linear(4 * width, width)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(self.ln_1(x)).view(
                b, t, 3, heads, 64).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
            return x + self.down(nn.functional.gelu(self.up(self.ln_2(x))))

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            tokens = (image // patch) ** 2 + 1
            self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
            self.cls = nn.Parameter(width ** -0.5 * torch.randn(width))
            self.pos = nn.Parameter(width ** -0.5 * torch.randn(tokens, width))
            self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.proj = nn.Parameter(width ** -0.5 * torch.randn(width, embed))

        def forward(self, x):
            x = self.conv1(x).flatten(2).transpose(1, 2)
            cls = self.cls.to(x.dtype).expand(x.shape[0], 1, -1)
            x = self.ln_pre(torch.cat([cls, x], 1) + self.pos)
            for block in self.blocks:
                x = block(x)
            return self.ln_post(x[:, 0]) @ self.proj

    return Tower()


def make_step(model, batch, precision):
    """A function that does one step, pixels and all, and waits for nothing."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    image, _, _, _, embed = sizes_of(model)
    tower = make_tower(model).cuda()
    head = torch.randn(100, embed, device="cuda")
    pixels = torch.randint(0, 256, (batch, 3, image, image), dtype=torch.uint8)
    pixels = pixels.pin_memory()
    labels = torch.arange(batch, device="cuda") % 100
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-6, weight_decay=0.1,
                                  fused=True)
    compiled = torch.compile(tower)

    def step():
        images = pixels.to("cuda", non_blocking=True).float() / 255 - 0.5
        with torch.autocast("cuda", torch.bfloat16,
                            enabled=precision == "bf16"):
            features = compiled(images)
        features = features.float()
        logits = nn.functional.normalize(features, dim=-1) @ head.t()
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        return loss

    return step


def time_round(step, n_steps):
    """Median seconds of a step; as in ours, the loss is read every step."""
    seconds = []
    for _ in range(n_steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step().item()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main():
    at = sys.argv.index("--")
    model, batch, precision, rounds, steps = sys.argv[1:at]
    batch, rounds, steps = int(batch), int(rounds), int(steps)
    ours = sys.argv[at + 1:]
    common = {"model": model, "batch": batch, "precision": precision}
    step = None
    if WHY_NOT:
        print(json.dumps({**common, "program": "PyTorch", "not run": WHY_NOT}))
    else:
        step = make_step(model, batch, precision)
        time_round(step, 5)  # compiles, chooses algorithms
    for number in range(rounds):
        text = subprocess.run(ours, check=True, stdout=subprocess.PIPE,
                              text=True).stdout
        row = json.loads(text)
        print(json.dumps({**common, "program": "magmax", "round": number,
                          "images_per_s": row["train_images_per_s"],
                          "gflop_per_image": row["train_gflop_per_image"]}),
              flush=True)
        if step:
            seconds = time_round(step, steps)
            print(json.dumps({**common, "program": "PyTorch", "round": number,
                              "images_per_s": batch / seconds,
                              "version": torch.__version__}), flush=True)


main()
