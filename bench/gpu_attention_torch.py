"""Attention by PyTorch's backends (cuDNN's, flash, memory-efficient), forward
and gradient, in bf16, at the lengths of image towers.

    gpu_attention_torch.py [--quick]

Prints a JSON object a line: seconds as bench/gpu_ops.c takes them.
"""

import json
import statistics
import time

LENGTHS = ((50, 12, 128), (197, 12, 128), (257, 16, 128), (577, 16, 32))


def seconds_of(run, torch):
    run()
    torch.cuda.synchronize()
    n_calls, samples = 1, []
    for sample in range(-1, 7):
        begin = time.perf_counter()
        for _ in range(n_calls):
            run()
        torch.cuda.synchronize()
        call_s = (time.perf_counter() - begin) / n_calls
        if sample >= 0:
            samples.append(call_s)
        else:
            n_calls = max(1, int(0.02 / call_s))
    return statistics.median(samples)


def main():
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError as error:
        print(json.dumps({"not run": str(error)}))
        return
    if not torch.cuda.is_available():
        print(json.dumps({"not run": "PyTorch sees no GPU"}))
        return
    attend = torch.nn.functional.scaled_dot_product_attention
    backends = {"cuDNN": SDPBackend.CUDNN_ATTENTION,
                "flash": SDPBackend.FLASH_ATTENTION,
                "memory-efficient": SDPBackend.EFFICIENT_ATTENTION}
    for tokens, heads, batch in LENGTHS:
        # As a product leaves them, a token's q, k and v together: no copies.
        qkv = torch.randn(batch, tokens, 3, heads, 64, device="cuda",
                          dtype=torch.bfloat16, requires_grad=True)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        dout = torch.randn(batch, heads, tokens, 64, device="cuda",
                           dtype=torch.bfloat16)
        for name, backend in backends.items():
            row = {"backend": name, "tokens": tokens, "heads": heads,
                   "batch": batch, "version": torch.__version__}
            try:
                with sdpa_kernel(backend):
                    with torch.no_grad():
                        row["forward_s"] = seconds_of(
                            lambda: attend(q, k, v), torch)
                    out = attend(q, k, v)
                    row["gradient_s"] = seconds_of(
                        lambda: torch.autograd.grad(
                            out, (q, k, v), dout, retain_graph=True), torch)
            except RuntimeError as error:
                row["not run"] = str(error).splitlines()[0]
            print(json.dumps(row), flush=True)


main()
