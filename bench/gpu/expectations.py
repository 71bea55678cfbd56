"""What an H100 SXM should reach, computed before anything had run on a GPU: from
the sources, from sm_90 machine code and from public figures; give or take 15 % per
step and 30 % per kernel. The floor is the larger of bytes over 3.0 TB/s and
operations over 750 TFLOP/s."""

# Milliseconds of a training step, by model, batch and precision.
STEPS = {("ViT-B-16", 128, "bf16"): 34.9,
         ("ViT-B-32", 128, "bf16"): 11.7,
         ("ViT-L-14", 64, "bf16"): 77.8}

# ViT-B-16, batch 128, bf16: what, floor and expectation (milliseconds per step),
# its ops as op_times.c names them.
KERNELS = (
    ("patches and tokens", 0.09, 0.14,
     ("patchify", "patch embedding", "embed_tokens")),
    ("layernorm", 0.62, 0.75, ("layernorm",)),
    ("qkv", 1.43, 1.73, ("qkv",)),
    ("attention", 0.62, 1.26, ("attention",)),
    ("out", 0.44, 0.68, ("out",)),
    ("MLP", 4.64, 5.69,
     ("MLP up, activation", "MLP down")),
    ("MLP, gradients to inputs", 5.20, 6.14,
     ("MLP down, input and activation gradient", "MLP up, input gradient")),
    ("out and qkv, gradients to inputs", 1.87, 2.30,
     ("out, input gradient", "qkv, input gradient")),
    ("weight gradients and bias sums", 5.37, 9.89,
     ("MLP down, weight gradient", "MLP up, weight gradient",
      "out, weight gradient", "qkv, weight gradient",
      "patch embedding, weight gradient")),
    ("layernorm_grad", 1.24, 1.63, ("layernorm_grad",)),
    ("attention_grad", 1.24, 3.00, ("attention_grad",)),
    ("head, loss, norm, AdamW, gaps", 1.00, 1.70,
     ("head and loss", "embed_tokens_grad", "sum_squares", "adamw")),
)
