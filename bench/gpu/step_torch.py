"""A training step in PyTorch, with everything that makes it fast there, beside
ours: rounds of both in turn, on the same card.

    step_torch.py [--whole] MODEL BATCH PRECISION ROUNDS STEPS DEVICE -- OURS...

The tower of vit_step_torch.py with scaled_dot_product_attention by the fastest
of its backends for the model's shape; torch.compile from bytes to loss; bf16
autocast or tf32 products; fused AdamW; the gradient's norm clipped; pixels
brought ahead by a stream of their own, losses read a step late. Blocks of
steps are timed, as vit_step.c has them. What is compiled is what comes before
the blocks, one block, whose code all of them share, and what comes after;
--whole compiles all as one graph, which takes minutes. MODEL is a name or
open_clip's JSON, DEVICE cuda, or cpu for rehearsals. OURS is a command that
prints one JSON line with its own medians. Prints a JSON object a round and
program; both must have as many parameters. With 0 ROUNDS it only compiles, for
the caches on disk. Ends with 77 without PyTorch or its GPU.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Says so and ends where there is no PyTorch.
from attention_torch import NOT_HERE, BACKENDS, time_backend

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.append(str(Path(__file__).resolve().parents[1]))
from vit_step_torch import size_of  # noqa: E402

N_CLASSES = 100
BLOCK_STEPS = 10  # vit_step.c's
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, width = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(
            b, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
        return x + self.down(nn.functional.gelu(self.up(self.ln_2(x))))


class Tower(nn.Module):
    """From bytes to the loss over some classes."""

    def __init__(self, model):
        super().__init__()
        image, patch, width, layers, embed, head_width = size_of(model)
        tokens = (image // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.cls = nn.Parameter(width ** -0.5 * torch.randn(width))
        self.pos = nn.Parameter(width ** -0.5 * torch.randn(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, width // head_width)
                                    for _ in range(layers))
        self.proj = nn.Parameter(width ** -0.5 * torch.randn(width, embed))
        for name, value in (("head", torch.randn(N_CLASSES, embed)),
                            ("mean", torch.tensor(MEAN).view(3, 1, 1)),
                            ("deviation",
                             torch.tensor(DEVIATION).view(3, 1, 1))):
            self.register_buffer(name, value)

    def begin(self, pixels):
        images = (pixels.float() / 255 - self.mean) / self.deviation
        x = self.conv1(images).flatten(2).transpose(1, 2)
        cls = self.cls.to(x.dtype).expand(x.shape[0], 1, -1)
        return self.ln_pre(torch.cat([cls, x], 1) + self.pos)

    def end(self, x, labels):
        features = self.ln_post(x[:, 0]) @ self.proj
        with torch.autocast(x.device.type, enabled=False):
            features = nn.functional.normalize(features.float(), dim=-1)
            return nn.functional.cross_entropy(features @ self.head.t(), labels)

    def forward(self, pixels, labels):
        x = self.begin(pixels)
        for block in self.blocks:
            x = block(x)
        return self.end(x, labels)

    def compile_parts(self, backend):
        self.begin = torch.compile(self.begin, backend=backend)
        self.end = torch.compile(self.end, backend=backend)
        for block in self.blocks:
            block.compile(backend=backend)


def fastest_attention(model, batch, precision, device):
    """The backend that takes least for forward and gradient at this shape."""
    image, patch, width, _, _, head_width = size_of(model)
    times = {}
    for name, backend in BACKENDS.items():
        try:
            times[name] = sum(time_backend(
                backend, batch, (image // patch) ** 2 + 1, width // head_width,
                head_width, device, device != "cuda",
                torch.bfloat16 if precision == "bf16" else torch.float32))
        except RuntimeError:
            continue  # not for this card or type
    return min(times, key=times.get, default="math")


class Trainer:
    def __init__(self, model, batch, precision, device, whole):
        torch.manual_seed(0)
        torch.set_float32_matmul_precision(
            "high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.device = torch.device(device)
        self.attention = fastest_attention(model, batch, precision, device)
        self.tower = Tower(model).to(device)
        self.autocast = torch.autocast(device, torch.bfloat16,
                                       enabled=precision == "bf16")
        image = size_of(model)[0]
        self.pixels = torch.randint(0, 256, (batch, 3, image, image),
                                    dtype=torch.uint8)
        if device == "cuda":
            self.pixels = self.pixels.pin_memory()
            self.copies = torch.cuda.Stream()
            self.losses = [(torch.empty((), pin_memory=True),
                            torch.cuda.Event()) for _ in range(2)]
        self.labels = torch.arange(batch, device=device) % N_CLASSES
        self.optimizer = torch.optim.AdamW(
            self.tower.parameters(), lr=1e-6, weight_decay=0.1, fused=True)
        # On a CPU, for rehearsals: all of it but the compiler.
        backend = "inductor" if device == "cuda" else "aot_eager"
        if whole:
            self.tower.compile(backend=backend)
        else:
            self.tower.compile_parts(backend)

    def n_params(self):
        return sum(p.numel() for p in self.tower.parameters())

    def fetch_pixels(self):
        """On the way while the step before computes."""
        if self.device.type != "cuda":
            return self.pixels
        with torch.cuda.stream(self.copies):
            pixels = self.pixels.to(self.device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self.copies)
        pixels.record_stream(torch.cuda.current_stream())
        return pixels

    def read_loss_before(self, loss):
        """Have this step's loss brought to the host; the one before it."""
        if self.device.type != "cuda":
            return loss.item()
        kept, copied = self.losses[0]
        kept.copy_(loss.detach(), non_blocking=True)
        copied.record()
        self.losses.reverse()
        before, copied = self.losses[0]
        copied.synchronize()
        return before.item()

    def step(self):
        """One step, pixels and all."""
        pixels = self.fetch_pixels()
        with self.autocast:
            loss = self.tower(pixels, self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
        self.optimizer.step()
        return self.read_loss_before(loss)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time_steps(self, n_steps):
        """Median over blocks of a step's seconds; one block more comes before
        and does not count."""
        n_blocks = max(1, n_steps // BLOCK_STEPS)
        n_each = n_steps // n_blocks
        seconds = []
        with sdpa_kernel(BACKENDS.get(self.attention, SDPBackend.MATH)):
            for _ in range(1 + n_blocks):
                self.synchronize()
                begin = time.perf_counter()
                for _ in range(n_each):
                    self.step()
                self.synchronize()
                seconds.append((time.perf_counter() - begin) / n_each)
        return statistics.median(seconds[1:])

    def give_back_memory(self):
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def run_ours(command, n_params):
    """Their row; they must train a model of as many parameters."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(f"{command[0]}: exit code {ended.returncode}")
    row = json.loads(ended.stdout.strip().splitlines()[-1])
    if row["n_params"] != n_params:
        sys.exit(f"PyTorch's model has {n_params} parameters, ours "
                 f"{row['n_params']}")
    return row


def main():
    at = sys.argv.index("--")
    words = [word for word in sys.argv[1:at] if word != "--whole"]
    model, batch, precision, rounds, steps, device = words
    batch, rounds, steps = int(batch), int(rounds), int(steps)
    if device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no GPU")
        sys.exit(NOT_HERE)
    begin = time.perf_counter()
    trainer = Trainer(model, batch, precision, device, "--whole" in sys.argv)
    trainer.time_steps(2)  # compiles, chooses algorithms
    print(json.dumps({"prepared": model, "attention": trainer.attention,
                      "seconds": time.perf_counter() - begin}), flush=True)
    common = {"model": model, "batch": batch, "precision": precision}
    for number in range(rounds):
        trainer.give_back_memory()
        row = run_ours(sys.argv[at + 1:], trainer.n_params())
        print(json.dumps({**common, "program": "magmax", "round": number,
                          "images_per_s": row["train_images_per_s"],
                          "gflop_per_image": row["train_gflop_per_image"]}),
              flush=True)
        seconds = trainer.time_steps(steps)
        print(json.dumps({**common, "program": "PyTorch", "round": number,
                          "images_per_s": batch / seconds,
                          "attention": trainer.attention,
                          "version": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
