"""Attention by PyTorch's backends (cuDNN's, flash, memory-efficient), forward
and gradient, in bf16, at the lengths of image towers.

    attention_torch.py [--quick]

Prints one JSON object per line: seconds as op_times.c takes them. --quick, for
rehearsals: on the CPU, tiny sizes, each once. Ends with 77 without PyTorch or its
GPU.
"""

import json
import statistics
import sys
import time

NOT_HERE = 77  # exit code: there is nothing to run it with
try:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    print(f"no PyTorch: {error}")
    sys.exit(NOT_HERE)

# Tokens, heads, images.
LENGTHS = ((50, 12, 128), (197, 12, 128), (257, 16, 128), (577, 16, 32))
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION,
            "flash": SDPBackend.FLASH_ATTENTION,
            "memory-efficient": SDPBackend.EFFICIENT_ATTENTION}
N_SAMPLES = 7
SAMPLE_S = 0.02


def seconds_of(run, device, once):
    def time_calls(n_calls):
        begin = time.perf_counter()
        for _ in range(n_calls):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / n_calls

    call_s = time_calls(1)
    if once:
        return call_s
    call_s = time_calls(3)
    n_calls = int(SAMPLE_S / call_s) + 1
    return statistics.median(time_calls(n_calls) for _ in range(N_SAMPLES))


def time_backend(backend, batch, tokens, heads, head_width, device, once,
                 dtype=torch.bfloat16):
    """Seconds of the forward pass and of the gradient; RuntimeError where the
    backend is not for that."""
    # As a product leaves them, a token's q, k and v together: no copies.
    qkv = torch.randn(batch, tokens, 3, heads, head_width, device=device,
                      dtype=dtype, requires_grad=True)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    dout = torch.randn(batch, heads, tokens, head_width, device=device,
                       dtype=dtype)
    attend = torch.nn.functional.scaled_dot_product_attention
    with sdpa_kernel(backend):
        with torch.no_grad():
            forward_s = seconds_of(lambda: attend(q, k, v), device, once)
        out = attend(q, k, v)
        gradient_s = seconds_of(
            lambda: torch.autograd.grad(out, (q, k, v), dout,
                                        retain_graph=True), device, once)
    return forward_s, gradient_s


def main():
    quick = "--quick" in sys.argv
    if not quick and not torch.cuda.is_available():
        print("PyTorch sees no GPU")
        sys.exit(NOT_HERE)
    for tokens, heads, batch in LENGTHS:
        for name, backend in BACKENDS.items():
            row = {"backend": name, "tokens": tokens, "heads": heads,
                   "batch": batch, "version": torch.__version__}
            try:
                row["forward_s"], row["gradient_s"] = time_backend(
                    backend, 1 if quick else batch, tokens,
                    1 if quick else heads, 64, "cpu" if quick else "cuda",
                    quick)
            except RuntimeError as error:
                row["not run"] = str(error).splitlines()[0]
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
