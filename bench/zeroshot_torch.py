"""The head of zeroshot.c by open_clip's own build_zero_shot_classifier, on
random weights: prints one JSON object in the same form.

    python3 bench/zeroshot_torch.py MODEL LISTS.json

LISTS.json is what `zeroshot list` prints. Needs open_clip_torch.
"""

import json
import sys
import time
from importlib import metadata

import open_clip
import torch


def main():
    name, lists = sys.argv[1], json.load(open(sys.argv[2]))
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    tokenizer = open_clip.get_tokenizer(name)
    names, prompts = lists["class_names"], lists["prompts"]

    def make(names):
        return open_clip.build_zero_shot_classifier(
            model, tokenizer, classnames=names, templates=prompts,
            num_classes_per_batch=max(1, 160 // len(prompts)))

    make(names[:2])  # warms up
    begin = time.perf_counter()
    make(names)
    seconds = time.perf_counter() - begin
    n_texts = len(names) * len(prompts)
    print(json.dumps({
        "model": name, "n_classes": len(names), "n_prompts": len(prompts),
        "n_threads": torch.get_num_threads(), "seconds": round(seconds, 2),
        "texts_per_s": n_texts / seconds, "torch": torch.__version__,
        "open_clip": metadata.version("open_clip_torch")}))


if __name__ == "__main__":
    main()
