#!/usr/bin/env python3
"""Weights go from open_clip, OpenAI and Hugging Face to us and back: the real
programs load what magmax_convert writes, and both sides compute the same.

ctest: slow cost=30

Runs under the Python of .ci/reference.sh, which has open_clip and transformers;
skipped where that is missing. features_tool (this folder) runs our towers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))


def enter_reference():
    """Go on under the reference environment's Python, or skip."""
    where = subprocess.run([str(ROOT / ".ci/reference.sh"), "--where"],
                           capture_output=True, text=True, check=True)
    folder = Path(where.stdout.strip())
    python = folder / "bin/python"
    if not (folder / "packages").exists():
        print(f"skipped: no {folder}; .ci/install.sh reference makes it")
        raise SystemExit(77)
    if Path(sys.prefix).resolve() != folder.resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


enter_reference()
os.environ["HF_HUB_OFFLINE"] = "1"

import magmax_cli as cli  # noqa: E402
import numpy as np  # noqa: E402
import open_clip  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

torch.set_num_threads(1)
MEAN = torch.tensor(open_clip.constants.OPENAI_DATASET_MEAN)
STD = torch.tensor(open_clip.constants.OPENAI_DATASET_STD)

CONFIG = {
    "embed_dim": 48, "quick_gelu": False,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 128,
                   "layers": 3},
    "text_cfg": {"context_length": 12, "vocab_size": 300, "width": 64,
                 "heads": 1, "layers": 2},
}


def config_with(vision=None, text=None, **top):
    config = json.loads(json.dumps(CONFIG))
    config.update(top)
    config["vision_cfg"].update(vision or {})
    config["text_cfg"].update(text or {})
    return config


def disturb(model, seed=0):
    """Other numbers than an initialisation's zeros and ones, of fp16."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
            parameter.copy_(parameter.half().float())
    return model.eval()


def images_and_tokens(config, n=3):
    rng = np.random.default_rng(7)
    size = config["vision_cfg"]["image_size"]
    text = config["text_cfg"]
    images = rng.integers(0, 256, (n, size, size, 3), np.uint8)
    tokens = rng.integers(1, text["vocab_size"] - 1,
                          (n, text["context_length"]), np.int32)
    for i in range(n):
        tokens[i, 4 + i:] = 0
        tokens[i, 4 + i] = text["vocab_size"] - 1  # the end token
    return images, tokens


def pixels(images):
    x = (torch.from_numpy(images).float() / 255 - MEAN) / STD
    return x.permute(0, 3, 1, 2).contiguous()


class Convert(cli.Case):
    def file(self, name):
        return self.dir / name

    def write_json(self, name, value):
        self.file(name).write_text(json.dumps(value))
        return self.file(name)

    def make_open_clip(self, config, name="tiny", seed=0, **options):
        """A random model of the real open_clip."""
        self.write_json(f"{name}.json", config)
        open_clip.add_model_config(self.file(f"{name}.json"))
        return disturb(open_clip.create_model(name, **options), seed)

    def convert(self, *args, **options):
        return cli.run_ok("magmax_convert", *args, **options)

    def features(self, tower, path, data, embed_dim, model="-"):
        data.tofile(self.file("in.raw"))
        proc = cli.run("features_tool", tower, path, model,
                       self.file("in.raw"), self.file("out.raw"))
        self.assertEqual(proc.returncode, 0, str(proc))
        return np.fromfile(self.file("out.raw"), "<f4").reshape(-1, embed_dim)

    def assert_close(self, ours, theirs, what):
        theirs = theirs.detach().float().numpy()
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        self.assertLess(error, 2e-5, what)

    def assert_same_features(self, path, config, image, text, model="-"):
        """Our towers on `path` give what theirs give."""
        images, tokens = images_and_tokens(config)
        n = config["embed_dim"]
        with torch.no_grad():
            self.assert_close(self.features("image", path, images, n, model),
                              image(pixels(images)), "image features")
            if text:
                self.assert_close(
                    self.features("text", path, tokens, n, model),
                    text(torch.from_numpy(tokens).long()), "text features")

    def assert_same_state(self, ours, theirs):
        """Two state dicts hold the same names and bits, buffers aside."""
        buffers = ("attn_mask", "position_ids")
        theirs = {k: v for k, v in theirs.items() if not k.endswith(buffers)}
        self.assertEqual(sorted(ours), sorted(theirs))
        for name, value in theirs.items():
            self.assertEqual(tuple(ours[name].shape), tuple(value.shape), name)
            self.assertTrue(torch.equal(ours[name], value), name)


class OpenClip(Convert):
    def check_both_ways(self, config, *model):
        theirs = self.make_open_clip(config)
        save_file(theirs.state_dict(), self.file("in.safetensors"))
        self.convert(self.file("in.safetensors"), self.file("w.h5"), *model)
        self.assert_same_features(self.file("w.h5"), config,
                                  theirs.encode_image, theirs.encode_text)
        self.convert(self.file("w.h5"), self.file("out.safetensors"))
        again = open_clip.create_model(
            "tiny", pretrained=str(self.file("out.safetensors")))
        self.assert_same_state(again.state_dict(), theirs.state_dict())

    def test_both_ways_with_either_activation(self):
        for quick_gelu in (False, True):
            with self.subTest(quick_gelu=quick_gelu):
                config = config_with(quick_gelu=quick_gelu)
                self.write_json("tiny.json", config)
                self.check_both_ways(config, "--model",
                                     self.file("tiny.json"))

    def test_heads_and_mlp_of_other_sizes(self):
        config = config_with({"head_width": 32, "mlp_ratio": 2.7},
                             {"heads": 4})
        self.write_json("tiny.json", config)
        self.check_both_ways(config, "--model", self.file("tiny.json"))

    def test_open_clip_config_beside_the_weights_tells_the_model(self):
        config = config_with(quick_gelu=True)
        self.write_json("open_clip_config.json", {
            "model_cfg": config,
            "preprocess_cfg": {"mean": MEAN.tolist(), "std": STD.tolist()}})
        self.check_both_ways(config)

    def test_other_number_types_are_rounded_as_torch_does(self):
        theirs = self.make_open_clip(CONFIG)
        with torch.no_grad():
            for p in theirs.parameters():
                p += 1e-3 * torch.randn_like(p)
        save_file(theirs.state_dict(), self.file("in.safetensors"))
        for dtype, kind in (("f16", torch.float16), ("bf16", torch.bfloat16),
                            ("f32", torch.float32)):
            with self.subTest(dtype=dtype):
                self.convert("--dtype", dtype, self.file("in.safetensors"),
                             self.file("out.safetensors"), "--model",
                             self.file("tiny.json"))
                out = load_file(self.file("out.safetensors"))
                self.assert_same_state(
                    out, {k: v.to(kind) if v.is_floating_point() else v
                          for k, v in theirs.state_dict().items()})

    def test_torch_files_give_the_same_as_safetensors(self):
        theirs = self.make_open_clip(CONFIG)
        state = theirs.state_dict()
        save_file(state, self.file("in.safetensors"))
        self.convert(self.file("in.safetensors"), self.file("a.safetensors"))
        expected = load_file(self.file("a.safetensors"))
        wrapped = {"epoch": 3, "name": "x", "optimizer": {"step": 1},
                   "state_dict": {f"module.{k}": v for k, v in state.items()}}
        for what, value in (("plain", state), ("wrapped", wrapped),
                            ("half", {k: v.half() for k, v in state.items()})):
            with self.subTest(what=what):
                torch.save(value, self.file("in.pt"))
                self.convert(self.file("in.pt"), self.file("b.safetensors"))
                self.assert_same_state(load_file(self.file("b.safetensors")),
                                       expected)

    def test_a_custom_text_clip_keeps_its_weights(self):
        config = config_with(quick_gelu=True)
        plain = self.make_open_clip(config)
        custom = open_clip.create_model("tiny", force_custom_text=True)
        custom.load_state_dict(
            open_clip.model.convert_to_custom_text_state_dict(
                plain.state_dict()))
        save_file(custom.state_dict(), self.file("in.safetensors"))
        self.convert("--model", self.file("tiny.json"),
                     self.file("in.safetensors"), self.file("out.safetensors"))
        self.assert_same_state(load_file(self.file("out.safetensors")),
                               plain.state_dict())


class ImageEncoder(torch.nn.Module):
    """As the authors' scripts keep a model; a file names this class."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.cachedir = None


class Authors(Convert):
    def test_pickled_encoders_with_and_without_text_blocks(self):
        model = self.make_open_clip(CONFIG)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        save_file(state, self.file("whole.safetensors"))
        torch.save(ImageEncoder(model), self.file("whole.pt"))
        self.convert(self.file("whole.pt"), self.file("out.safetensors"))
        self.assert_same_state(load_file(self.file("out.safetensors")), state)

        del model.transformer
        torch.save(ImageEncoder(model), self.file("image.pt"))
        proc = self.convert(self.file("image.pt"), self.file("image.h5"),
                            "--model", self.file("tiny.json"))
        self.assertIn("left out", proc.stderr)
        image = {k: v for k, v in state.items()
                 if k.startswith("visual.") or k == "logit_scale"}
        self.convert(self.file("image.h5"), self.file("out.safetensors"))
        self.assert_same_state(load_file(self.file("out.safetensors")), image)

        self.convert(self.file("image.h5"), self.file("out.safetensors"),
                     "--with", self.file("whole.safetensors"))
        self.assert_same_state(load_file(self.file("out.safetensors")), state)
        open_clip.create_model(
            "tiny", pretrained=str(self.file("out.safetensors")))


class OpenAI(Convert):
    def setUp(self):
        super().setUp()
        self.config = config_with(quick_gelu=True)
        self.theirs = self.make_open_clip(self.config)
        self.state = {k: v for k, v in self.theirs.state_dict().items()
                      if k != "attn_mask"}

    def constants(self):
        return {"input_resolution": torch.tensor(32),
                "context_length": torch.tensor(12),
                "vocab_size": torch.tensor(300)}

    def save_torchscript(self, path, constants):
        """An archive whose state dict is OpenAI's: fp16, with constants."""
        def add(module, name, value):
            head, dot, rest = name.partition(".")
            if dot:
                if head not in module._modules:
                    module.add_module(head, torch.nn.Module())
                add(module._modules[head], rest, value)
            elif value.is_floating_point():
                module.register_parameter(
                    head, torch.nn.Parameter(value.half(), False))
            else:
                module.register_buffer(head, value)

        root = torch.nn.Module()
        for name, value in {**self.state, **constants}.items():
            add(root, name, value)
        torch.jit.script(root).save(str(path))

    def test_torchscript_archives_have_quickgelu(self):
        self.save_torchscript(self.file("in.pt"), self.constants())
        proc = self.convert(self.file("in.pt"), self.file("w.h5"))
        self.assertIn("OpenAI", proc.stderr)
        self.assert_same_features(
            self.file("w.h5"), self.config, self.theirs.encode_image,
            self.theirs.encode_text)

    def test_torchscript_without_openais_constants_is_not_theirs(self):
        gelu = self.write_json("gelu.json", config_with(quick_gelu=False))
        theirs = self.make_open_clip(config_with(quick_gelu=False), "gelu")
        self.state = {k: v for k, v in theirs.state_dict().items()
                      if k != "attn_mask"}
        self.save_torchscript(self.file("in.pt"), {})
        proc = self.convert(self.file("in.pt"), self.file("w.h5"))
        self.assertIn("no model is recorded", proc.stderr)
        for path in ("in.pt", "w.h5"):
            self.assert_same_features(
                self.file(path), config_with(quick_gelu=False),
                theirs.encode_image, theirs.encode_text, model=gelu)

    def test_a_torchscript_archive_is_loaded_as_quickgelu(self):
        self.save_torchscript(self.file("in.pt"), self.constants())
        gelu = self.write_json("gelu.json", config_with(quick_gelu=False))
        self.assert_same_features(
            self.file("in.pt"), self.config, self.theirs.encode_image,
            self.theirs.encode_text, model=gelu)

    def test_openai_names_load_in_code_for_openai(self):
        save_file({**self.state, **self.constants()},
                  self.file("in.safetensors"))
        self.convert(self.file("in.safetensors"), self.file("w.h5"))
        self.convert("--names", "openai", self.file("w.h5"),
                     self.file("out.safetensors"))
        out = load_file(self.file("out.safetensors"))
        self.assert_same_state(out, self.state)
        again = open_clip.model.build_model_from_openai_state_dict(
            out, cast_dtype=torch.float32).float().eval()
        self.assert_same_features(self.file("w.h5"), self.config,
                                  again.encode_image, again.encode_text)


class HuggingFace(Convert):
    def make(self, act="quick_gelu", heads=2, **vision):
        towers = {"hidden_act": act, "intermediate_size": 256,
                  "projection_dim": 48}
        config = transformers.CLIPConfig(
            projection_dim=48,
            text_config={**towers, "hidden_size": 64, "vocab_size": 300,
                         "num_hidden_layers": 2, "num_attention_heads": 1,
                         "max_position_embeddings": 12, "eos_token_id": 299},
            vision_config={**towers, "hidden_size": 128, "image_size": 32,
                           "num_hidden_layers": 3, "patch_size": 8,
                           "num_attention_heads": heads, **vision})
        return disturb(transformers.CLIPModel(config))

    def check_both_ways(self, theirs, *saved):
        self.convert(self.file(*saved), self.file("w.h5"))
        self.assert_same_features(
            self.file("w.h5"), CONFIG,
            lambda x: theirs.get_image_features(pixel_values=x),
            lambda x: theirs.get_text_features(input_ids=x))
        back = self.file("back")
        theirs.config.save_pretrained(back)
        self.convert("--names", "huggingface", self.file("w.h5"),
                     back / "model.safetensors")
        again = transformers.CLIPModel.from_pretrained(back)
        self.assert_same_state(again.state_dict(), theirs.state_dict())

    def test_both_ways_with_either_activation(self):
        for act, heads in (("quick_gelu", 2), ("gelu", 4)):
            with self.subTest(act=act):
                theirs = self.make(act, heads, intermediate_size=384)
                theirs.save_pretrained(self.file("hf"))
                self.check_both_ways(theirs, "hf/model.safetensors")

    def test_pytorch_bin_files(self):
        theirs = self.make()
        theirs.save_pretrained(self.file("hf"), safe_serialization=False)
        self.check_both_ways(theirs, "hf/pytorch_model.bin")

    def test_sharded_files(self):
        theirs = self.make()
        theirs.save_pretrained(self.file("hf"), max_shard_size="200KB")
        self.assertGreater(len(list(self.file("hf").glob("*.safetensors"))), 2)
        self.check_both_ways(theirs, "hf/model.safetensors.index.json")

    def test_position_ids_are_passed_over(self):
        theirs = self.make()
        theirs.save_pretrained(self.file("hf"))
        state = load_file(self.file("hf/model.safetensors"))
        state["vision_model.embeddings.position_ids"] = torch.arange(17)
        state["text_model.embeddings.position_ids"] = torch.arange(12)[None]
        save_file(state, self.file("hf/model.safetensors"))
        self.check_both_ways(theirs, "hf/model.safetensors")

    def test_image_towers_with_and_without_projection(self):
        theirs = self.make()
        theirs.save_pretrained(self.file("whole"))
        image = transformers.CLIPVisionModelWithProjection.from_pretrained(
            self.file("whole"))
        image.save_pretrained(self.file("image"))
        self.convert(self.file("image/model.safetensors"), self.file("w.h5"))
        self.assert_same_features(
            self.file("w.h5"), CONFIG,
            lambda x: theirs.get_image_features(pixel_values=x), None)
        bare = transformers.CLIPVisionModel.from_pretrained(
            self.file("whole"))
        bare.save_pretrained(self.file("bare"))
        proc = cli.run("magmax_convert", self.file("bare/model.safetensors"),
                       self.file("w2.h5"))
        self.assert_one_line_error(proc, "visual_projection.weight")
        self.convert(self.file("bare/model.safetensors"), self.file("w2.h5"),
                     "--with", self.file("whole/model.safetensors"))
        self.assert_same_features(
            self.file("w2.h5"), CONFIG,
            lambda x: theirs.get_image_features(pixel_values=x),
            lambda x: theirs.get_text_features(input_ids=x))

    def test_image_towers_of_transformers_5(self):
        """Which saves them without "vision_model."."""
        theirs = self.make()
        theirs.save_pretrained(self.file("whole"))
        theirs.config.vision_config.save_pretrained(self.file("bare"))
        state = load_file(self.file("whole/model.safetensors"))
        save_file({k.removeprefix("vision_model."): v
                   for k, v in state.items() if k.startswith("vision_model.")},
                  self.file("bare/model.safetensors"))
        proc = cli.run("magmax_convert", self.file("bare/model.safetensors"),
                       self.file("w.h5"))
        self.assert_one_line_error(proc, "visual_projection.weight")
        self.convert(self.file("bare/model.safetensors"), self.file("w.h5"),
                     "--with", self.file("whole/model.safetensors"))
        self.assert_same_features(
            self.file("w.h5"), CONFIG,
            lambda x: theirs.get_image_features(pixel_values=x),
            lambda x: theirs.get_text_features(input_ids=x))

    def test_to_open_clip_and_back_gives_the_same_bits(self):
        theirs = self.make(intermediate_size=512)
        theirs.save_pretrained(self.file("hf"))
        self.convert(self.file("hf/model.safetensors"),
                     self.file("oc.safetensors"))
        self.make_open_clip(config_with(quick_gelu=True))
        model = open_clip.create_model(
            "tiny", pretrained=str(self.file("oc.safetensors"))).eval()
        images, _ = images_and_tokens(CONFIG)
        with torch.no_grad():
            self.assert_close(
                model.encode_image(pixels(images)).numpy(),
                theirs.get_image_features(pixel_values=pixels(images)),
                "features in open_clip")
        self.convert("--names", "huggingface", self.file("oc.safetensors"),
                     self.file("again.safetensors"))
        self.assert_same_state(load_file(self.file("again.safetensors")),
                               theirs.state_dict())


class Positions(Convert):
    def check(self, size):
        """Weights for 32x32 images, used for size x size ones."""
        small = self.make_open_clip(CONFIG)
        save_file(small.state_dict(), self.file("small.safetensors"))
        config = config_with({"image_size": size})
        self.write_json("other.json", config)
        open_clip.add_model_config(self.file("other.json"))
        theirs = open_clip.create_model(
            "other", pretrained=str(self.file("small.safetensors"))).eval()
        proc = self.convert("--model", self.file("other.json"),
                            self.file("small.safetensors"),
                            self.file("other.safetensors"))
        self.assertIn(f"from 4 x 4 to {size // 8} x {size // 8}", proc.stderr)
        ours = load_file(self.file("other.safetensors"))
        expected = theirs.state_dict()
        name = "visual.positional_embedding"
        worst = (ours[name] - expected[name]).abs().max()
        self.assertLess(worst / expected[name].abs().max(), 1e-5)
        self.assertTrue(torch.equal(ours[name][0], expected[name][0]))
        ours[name] = expected[name]
        self.assert_same_state(ours, expected)
        # And without converting first.
        self.assert_same_features(
            self.file("small.safetensors"), config, theirs.encode_image,
            theirs.encode_text, model=self.file("other.json"))

    def test_larger_and_smaller_grids_equal_open_clip(self):
        for size in (40, 56, 96, 24, 16):
            with self.subTest(size=size):
                self.check(size)


class FullSize(Convert):
    def test_vit_b_32_goes_to_open_clip_and_back(self):
        theirs = disturb(open_clip.create_model("ViT-B-32-quickgelu"))
        config = open_clip.get_model_config("ViT-B-32")
        save_file(theirs.state_dict(), self.file("in.safetensors"))
        self.convert("--model", "ViT-B-32-quickgelu",
                     self.file("in.safetensors"), self.file("w.h5"))
        self.assert_same_features(self.file("w.h5"), config,
                                  theirs.encode_image, theirs.encode_text)
        self.convert(self.file("w.h5"), self.file("out.safetensors"))
        self.assert_same_state(load_file(self.file("out.safetensors")),
                               theirs.state_dict())


if __name__ == "__main__":
    cli.main()
