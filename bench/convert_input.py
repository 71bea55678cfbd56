"""A safetensors file of a whole CLIP with random weights.

    convert_input.py MODEL FILE      MODEL: ViT-B-32, ViT-B-16 or ViT-L-14
"""

import json
import struct
import sys

import numpy as np

# embed_dim, patch, width, layers, text width.
SIZES = {"ViT-B-32": (512, 32, 768, 12, 512),
         "ViT-B-16": (512, 16, 768, 12, 512),
         "ViT-L-14": (768, 14, 1024, 24, 768)}


def tower(prefix, width, layers):
    for layer in range(layers):
        block = f"{prefix}transformer.resblocks.{layer}."
        yield block + "ln_1.weight", (width,)
        yield block + "ln_1.bias", (width,)
        yield block + "attn.in_proj_weight", (3 * width, width)
        yield block + "attn.in_proj_bias", (3 * width,)
        yield block + "attn.out_proj.weight", (width, width)
        yield block + "attn.out_proj.bias", (width,)
        yield block + "ln_2.weight", (width,)
        yield block + "ln_2.bias", (width,)
        yield block + "mlp.c_fc.weight", (4 * width, width)
        yield block + "mlp.c_fc.bias", (4 * width,)
        yield block + "mlp.c_proj.weight", (width, 4 * width)
        yield block + "mlp.c_proj.bias", (width,)


def shapes(model):
    embed, patch, width, layers, text = SIZES[model]
    yield "positional_embedding", (77, text)
    yield "text_projection", (text, embed)
    yield "logit_scale", ()
    yield "visual.class_embedding", (width,)
    yield "visual.positional_embedding", ((224 // patch) ** 2 + 1, width)
    yield "visual.proj", (width, embed)
    yield "visual.conv1.weight", (width, 3, patch, patch)
    for norm in ("ln_pre", "ln_post"):
        yield f"visual.{norm}.weight", (width,)
        yield f"visual.{norm}.bias", (width,)
    yield from tower("visual.", width, layers)
    yield from tower("", text, 12)
    yield "token_embedding.weight", (49408, text)
    yield "ln_final.weight", (text,)
    yield "ln_final.bias", (text,)


def main():
    tensors = list(shapes(sys.argv[1]))
    header, offset = {}, 0
    for name, shape in tensors:
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(1)
    with open(sys.argv[2], "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors:
            out.write(rng.standard_normal(shape, np.float32).tobytes())


if __name__ == "__main__":
    main()
