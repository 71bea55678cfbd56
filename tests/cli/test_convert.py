"""magmax_convert as a user runs it.

ctest: cost=20
"""

import json
import struct

import h5py
import magmax_cli as cli
import numpy as np

TEXT = {"context_length": 6, "vocab_size": 50, "width": 16, "heads": 2,
        "layers": 2}


def text_shapes(config):
    text = config["text_cfg"]
    width = text["width"]
    shapes = {"positional_embedding": (text["context_length"], width),
              "text_projection": (width, config["embed_dim"]),
              "logit_scale": (),
              "token_embedding.weight": (text["vocab_size"], width),
              "ln_final.weight": (width,), "ln_final.bias": (width,)}
    # A block is one of the image tower's.
    tower = {**config, "vision_cfg": {**config["vision_cfg"], "width": width,
                                      "layers": text["layers"]}}
    for name, shape in cli.model_shapes(tower).items():
        if ".resblocks." in name:
            shapes[name.removeprefix("visual.")] = shape
    return shapes


def header(path):
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + length])


class Case(cli.Case):
    """model.json, whole.safetensors (both towers) and image.safetensors in
    self.dir; self.weights holds what is in the first."""

    def setUp(self):
        super().setUp()
        self.config = {**cli.make_model(self.dir / "model.json",
                                        quick_gelu=True), "text_cfg": TEXT}
        self.model = self.write_json("model.json", self.config)
        image = cli.random_weights(self.config)
        rng = np.random.default_rng(1)
        self.weights = {**image, **{
            name: rng.standard_normal(shape).astype(np.float32)
            for name, shape in text_shapes(self.config).items()}}
        self.whole = self.dir / "whole.safetensors"
        cli.write_safetensors(self.whole, self.weights)
        self.image = self.dir / "image.safetensors"
        cli.write_safetensors(self.image, image)

    def write_json(self, name, value):
        path = self.dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
        return path

    def changed(self, name="in.safetensors", **tensors):
        """whole.safetensors with other tensors; None removes one. Names are
        written with __ for a dot."""
        weights = dict(self.weights)
        for key, value in tensors.items():
            key = key.replace("__", ".")
            weights.pop(key, None)
            if value is not None:
                weights[key] = value
        cli.write_safetensors(self.dir / name, weights)
        return self.dir / name

    def convert(self, *args, **options):
        return cli.run_ok("magmax_convert", *args, **options)

    def refuse(self, fragments, *args, code=1, n_ranks=None):
        """One line that names the fragments; no file is touched."""
        with cli.unchanged(self.dir):
            proc = cli.run("magmax_convert", *args, n_ranks=n_ranks)
        self.assert_one_line_error(proc, *fragments)
        self.assertEqual(proc.returncode, code, str(proc))


class Conversion(Case):
    def test_checkpoint_and_safetensors_hold_the_same(self):
        h5, out = self.dir / "w.h5", self.dir / "out.safetensors"
        self.convert("--model", self.model, self.whole, h5)
        self.assert_same_weights(cli.read_checkpoint(h5), self.weights)
        self.convert(h5, out)
        self.assert_same_weights(cli.read_safetensors(out), self.weights)
        with h5py.File(h5) as file:
            self.assertEqual(json.loads(file.attrs["model"]), self.config)
        metadata = header(out)["__metadata__"]
        self.assertEqual(metadata["format"], "pt")
        self.assertEqual(json.loads(metadata["model"]), self.config)

    def test_the_record_keeps_how_the_input_was_made(self):
        h5, out = self.dir / "w.h5", self.dir / "out.h5"
        self.convert("--model", self.model, self.whole, h5)
        self.convert(h5, out)
        with h5py.File(out) as file:
            record = json.loads(file["provenance"][()])
        self.assertEqual(record["program"], "magmax_convert")
        self.assertEqual(record["options"]["operands"], [str(h5), str(out)])
        self.assertEqual(record["source"]["options"]["model"],
                         str(self.model))

    def test_same_bytes_for_any_number_of_ranks(self):
        hf = self.dir / "hf.safetensors"
        self.convert("--model", self.model, "--names", "huggingface",
                     self.whole, hf)
        for args, name in (((hf,), "out.h5"),
                           ((hf, "--names", "huggingface"),
                            "out.safetensors"),
                           ((hf, "--dtype", "bf16"), "out.safetensors")):
            files = set()
            for n_ranks in (None, 1, 2, 3, 5):
                self.convert(*args, self.dir / name, n_ranks=n_ranks)
                files.add((self.dir / name).read_bytes())
            self.assertEqual(len(files), 1, args)

    def test_huggingface_names_divide_and_transpose(self):
        out = self.dir / "hf.safetensors"
        self.convert("--names", "huggingface", self.whole, out)
        theirs, ours = cli.read_safetensors(out), self.weights
        self.assertEqual(len(theirs), len(ours) + 2 * 2 * (2 + 2))
        np.testing.assert_array_equal(theirs["visual_projection.weight"],
                                      ours["visual.proj"].T)
        np.testing.assert_array_equal(
            theirs["text_model.encoder.layers.1.self_attn.k_proj.weight"],
            ours["transformer.resblocks.1.attn.in_proj_weight"][16:32])
        np.testing.assert_array_equal(
            theirs["vision_model.encoder.layers.0.self_attn.v_proj.bias"],
            ours["visual.transformer.resblocks.0.attn.in_proj_bias"][32:])
        back = self.dir / "back.safetensors"
        self.convert(out, back)
        self.assert_same_weights(cli.read_safetensors(back), ours)

    def test_an_image_tower_alone_is_told_and_completed(self):
        out = self.dir / "out.safetensors"
        proc = self.convert(self.image, out)
        self.assertIn("holds the image tower only", proc.stderr)
        self.convert(self.image, out, "--with", self.whole)
        self.assert_same_weights(cli.read_safetensors(out), self.weights)

    def test_a_merged_model_goes_back_whole(self):
        tuned = {name: value + np.float32(0.25)
                 for name, value in self.weights.items()
                 if name.startswith("visual.")}
        cli.write_safetensors(self.dir / "task.safetensors", tuned)
        self.convert("--model", self.model, self.whole, self.dir / "base.h5")
        cli.run_ok("magmax_merge", "--pretrained", self.dir / "base.h5", "-o",
                   self.dir / "merged.h5", self.dir / "task.safetensors")
        self.convert(self.dir / "merged.h5", self.dir / "out.safetensors")
        out = cli.read_safetensors(self.dir / "out.safetensors")
        self.assertEqual(sorted(out), sorted(self.weights))
        for name, value in out.items():
            if not name.startswith("visual."):
                np.testing.assert_array_equal(value, self.weights[name])

    def test_constants_and_a_scale_of_one_element_are_fine(self):
        path = self.changed(
            logit_scale=self.weights["logit_scale"].reshape(1),
            attn_mask=np.zeros((6, 6), np.float32),
            visual__position_ids=np.arange(5), n_averaged=np.array(3))
        out = self.dir / "out.safetensors"
        self.convert(path, out)
        self.assert_same_weights(cli.read_safetensors(out), self.weights)

    def test_prefixes_of_wrappers_are_left_out(self):
        cli.write_safetensors(self.dir / "in.safetensors", {
            f"image_encoder.model.{k}": v for k, v in self.weights.items()})
        out = self.dir / "out.safetensors"
        self.convert(self.dir / "in.safetensors", out)
        self.assert_same_weights(cli.read_safetensors(out), self.weights)

    def test_an_earlier_output_is_replaced(self):
        out = self.dir / "out.safetensors"
        out.write_text("earlier")
        self.convert(self.whole, out)
        self.assert_same_weights(cli.read_safetensors(out), self.weights)
        self.assertFalse((self.dir / "out.safetensors.tmp").exists())


class Model(Case):
    """Which configuration is recorded, and what is said about it."""

    def recorded(self, *args):
        out = self.dir / "out.h5"
        self.stderr = self.convert(*args, out).stderr
        with h5py.File(out) as file:
            return json.loads(file.attrs.get("model", "null"))

    def test_nothing_is_guessed(self):
        self.assertIsNone(self.recorded(self.whole))
        self.assertIn("does not say", self.stderr)
        proc = cli.run("magmax_head", "--orthonormal", "--dataset", "x",
                       "--load", self.dir / "out.h5", "-o", self.dir / "h.h5")
        self.assert_one_line_error(proc, "--model is required")

    def test_a_file_beside_the_weights_tells(self):
        self.write_json("open_clip_config.json", {"model_cfg": self.config})
        self.assertEqual(self.recorded(self.whole), self.config)
        self.assertNotIn("warning", self.stderr)

    def test_other_normalisation_is_a_warning(self):
        self.write_json("open_clip_config.json", {
            "model_cfg": self.config,
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
        self.recorded(self.whole)
        self.assertIn("warning", self.stderr)
        self.assertIn("preprocess_cfg", self.stderr)

    def test_config_json_is_only_for_hugging_faces_names(self):
        self.write_json("config.json", {"model_type": "of a run of ours"})
        self.recorded(self.whole)
        hf = self.dir / "hf.safetensors"
        self.convert("--names", "huggingface", self.whole, hf)
        self.refuse(["config.json", "model_type"], hf, self.dir / "b.h5")

    def test_what_is_typed_yields_to_the_files_activation(self):
        self.write_json("open_clip_config.json", {"model_cfg": self.config})
        gelu = self.write_json("gelu.json",
                               {**self.config, "quick_gelu": False})
        self.assertEqual(self.recorded("--model", gelu, self.whole),
                         self.config)
        self.assertIn("QuickGELU; following the file", self.stderr)

    def test_openais_constants_mean_quickgelu(self):
        config = {**self.config, "embed_dim": 8,
                  "vision_cfg": {"image_size": 8, "patch_size": 4,
                                 "width": 64, "layers": 1},
                  "text_cfg": {**TEXT, "width": 64, "heads": 1}}
        tensors = {name: np.zeros(shape, np.float32) for name, shape in {
            **cli.model_shapes(config), **text_shapes(config)}.items()}
        tensors["input_resolution"] = np.int64(8)
        cli.write_safetensors(self.dir / "in.safetensors", tensors)
        self.assertEqual(self.recorded(self.dir / "in.safetensors"), config)
        self.assertIn("OpenAI", self.stderr)

    def test_a_configuration_for_other_sizes_is_refused(self):
        other = self.write_json("other.json", {
            **self.config,
            "vision_cfg": {**self.config["vision_cfg"], "layers": 3}})
        self.refuse(["--model", "layers 3", "2"], "--model", other, self.whole,
                    self.dir / "out.h5")
        self.refuse(["--model", "embed_dim 512", "8"], "--model", "ViT-B-32",
                    self.whole, self.dir / "out.h5")
        self.write_json("open_clip_config.json", {"model_cfg": {
            **self.config,
            "vision_cfg": {**self.config["vision_cfg"], "image_size": 16}}})
        self.refuse(["open_clip_config.json", "positions 17", "5"], self.whole,
                    self.dir / "out.h5")

    def test_configuration_files_that_cannot_be_meant(self):
        beside = self.dir / "open_clip_config.json"
        for text, fragment in (("{", "line 1"), ("[]", "not a JSON object"),
                               ("{}", "model_cfg is missing"),
                               ('{"model_cfg": {"embed": 8}}', "embed_dim")):
            beside.write_text(text)
            self.refuse([beside, fragment], self.whole, self.dir / "out.h5")

    def test_hugging_face_configurations_that_cannot_be_meant(self):
        folder = self.dir / "hf"
        folder.mkdir()
        self.convert("--names", "huggingface", self.whole,
                     self.dir / "with.safetensors")
        weights = cli.read_safetensors(self.dir / "with.safetensors")
        cli.write_safetensors(folder / "w.safetensors", weights)
        vision = {"hidden_size": 16, "intermediate_size": 64,
                  "num_attention_heads": 2, "num_hidden_layers": 2,
                  "image_size": 8, "patch_size": 4}
        text = {"hidden_size": 16, "intermediate_size": 64,
                "num_attention_heads": 2, "num_hidden_layers": 2,
                "max_position_embeddings": 6, "vocab_size": 50}
        good = {"projection_dim": 8, "vision_config": vision,
                "text_config": text}
        self.write_json("hf/config.json", good)
        self.assertEqual(self.recorded(folder / "w.safetensors"), self.config)
        for vision_key, text_key, fragment in (
                ({"hidden_act": "relu"}, {}, "hidden_act relu"),
                ({"hidden_act": "gelu"}, {}, "hidden_act differ"),
                ({"layer_norm_eps": 1e-6}, {}, "layer_norm_eps"),
                ({"num_channels": 4}, {}, "num_channels"),
                ({"num_attention_heads": 3}, {}, "num_attention_heads 3"),
                ({}, {"vocab_size": "50"}, "text_config.vocab_size"),
                ({"hidden_size": 0}, {}, "vision_config.hidden_size"),
                ({"patch_size": 2}, {}, "patch_size 2")):
            self.write_json("hf/config.json", {
                **good, "vision_config": {**vision, **vision_key},
                "text_config": {**text, **text_key}})
            self.refuse([folder / "config.json", fragment],
                        folder / "w.safetensors", self.dir / "b.h5")


class Refusals(Case):
    def setUp(self):
        super().setUp()
        self.out = self.dir / "out.safetensors"
        self.out.write_text("an earlier one that stays")

    def test_command_lines_that_cannot_be_meant(self):
        for args in ((), (self.whole,), (self.whole, self.out, self.out)):
            self.refuse(["IN OUT", str(len(args))], *args, code=2)
        self.refuse(["--names", "hugging", "huggingface"], "--names",
                    "hugging", self.whole, self.out, code=2)
        self.refuse(["--dtype", "f32"], "--dtype", "fp32", self.whole,
                    self.out, code=2)
        self.refuse(["ViT-B-32", "ViT-L-14"], "--model", "ViT-B32", self.whole,
                    self.out)

    def test_outputs_that_cannot_be_meant(self):
        for name in ("out", "out.npz", "safetensors"):
            self.refuse([".safetensors", ".h5"], self.whole, self.dir / name)
        for name in ("out.pt", "out.bin", "out.pth"):
            self.refuse(["read, not written", ".safetensors"], self.whole,
                        self.dir / name)
        self.refuse(["--names huggingface", ".h5"], "--names", "huggingface",
                    self.whole, self.dir / "out.h5")
        self.refuse(["--dtype bf16", "f32"], "--dtype", "bf16", self.whole,
                    self.dir / "out.h5")
        self.refuse([self.dir / "no"], self.whole, self.dir / "no/out.h5",
                    n_ranks=2)

    def test_inputs_are_never_overwritten(self):
        (self.dir / "link.safetensors").symlink_to(self.whole)
        (self.dir / "x.h5.tmp").write_bytes(self.whole.read_bytes())
        for args in ((self.whole, self.whole),
                     (self.dir / "link.safetensors", self.whole),
                     (self.whole, self.dir / "link.safetensors"),
                     (self.dir / "x.h5.tmp", self.dir / "x.h5"),
                     (self.image, self.whole, "--with", self.whole)):
            self.refuse(["would overwrite"], *args)

    def test_no_file_of_an_index_is_overwritten(self):
        parts = {"a.safetensors": {}, "b.safetensors": {}}
        for i, (name, value) in enumerate(self.weights.items()):
            parts["ab"[i % 2] + ".safetensors"][name] = value
        for name, tensors in parts.items():
            cli.write_safetensors(self.dir / name, tensors)
        index = self.write_json("in.safetensors.index.json", {"weight_map": {
            name: part for part in parts for name in parts[part]}})
        self.refuse(["would overwrite"], index, self.dir / "b.safetensors")
        self.convert(index, self.out)
        self.assert_same_weights(cli.read_safetensors(self.out), self.weights)

    def test_inputs_that_are_no_weights(self):
        self.refuse([self.dir / "none.pt"], self.dir / "none.pt", self.out,
                    n_ranks=2)
        self.refuse([self.dir], self.dir, self.out)
        (self.dir / "noise").write_bytes(b"no weights at all")
        self.refuse([self.dir / "noise"], self.dir / "noise", self.out)
        self.refuse([self.dir / "none.h5"], self.whole, self.out, "--with",
                    self.dir / "none.h5")

    def test_other_models_are_named(self):
        one = np.zeros((2, 2), np.float32)
        for name, fragment in (
                ("weight", "no CLIP Vision Transformer"),
                ("visual.trunk.blocks.0.norm1.weight", "timm"),
                ("visual.layer1.0.conv1.weight", "ResNet"),
                ("text_model.embeddings.token_embedding.weight",
                 "without its image tower")):
            cli.write_safetensors(self.dir / "in.safetensors", {name: one})
            self.refuse([fragment, name], self.dir / "in.safetensors",
                        self.out)
        cli.write_safetensors(self.dir / "in.safetensors", {})
        self.refuse(["no tensors"], self.dir / "in.safetensors", self.out)

    def test_every_wrong_tensor_is_named_at_once(self):
        path = self.changed(
            visual__ln_pre__bias=None, ln_final__bias=None,
            visual__more=np.zeros(3, np.float32),
            visual__ln_post__weight=np.zeros(17, np.float32))
        self.refuse(["missing tensors: ", "visual.ln_pre.bias", "ln_final.bias",
                     "unexpected tensors: visual.more", "tensors of another shape: "
                     "visual.ln_post.weight [17], not [16]"], path, self.out,
                    n_ranks=2)

    def test_long_lists_are_cut(self):
        path = self.changed(**{
            f"transformer__resblocks__{i}__{name}__{kind}": None
            for i in range(2) for name in ("ln_1", "ln_2")
            for kind in ("weight", "bias")})
        self.refuse(["and 4 more"], path, self.out)
        path = self.changed(visual__conv1__weight=self.weights[
            "visual.conv1.weight"][:, :, :, 0])
        self.refuse(["visual.conv1.weight", "[16, 3, 4]"], path, self.out)

    def test_tensors_without_which_sizes_are_unknown(self):
        for name in ("visual.proj", "visual.positional_embedding",
                     "token_embedding.weight"):
            path = self.changed(**{name.replace(".", "__"): None})
            self.refuse(["does not contain the tensor " + name], path, self.out)
        path = self.changed(visual__positional_embedding=np.zeros(
            (7, 16), np.float32))
        self.refuse(["7 positions"], path, self.out)

    def test_a_second_file_of_another_model_is_refused(self):
        other = dict(self.weights)
        other["visual.conv1.weight"] = np.zeros((16, 3, 2, 2), np.float32)
        cli.write_safetensors(self.dir / "other.safetensors", other)
        self.refuse([self.dir / "other.safetensors", "visual.conv1.weight"],
                    self.image, self.out, "--with",
                    self.dir / "other.safetensors")
        for name, quick in (("a", True), ("b", False)):
            config = self.write_json(f"{name}.json",
                                     {**self.config, "quick_gelu": quick})
            self.convert("--model", config, self.whole,
                         self.dir / f"{name}.h5")
        self.refuse(["do not belong together"], self.dir / "a.h5", self.out,
                    "--with", self.dir / "b.h5")

    def test_what_openais_code_cannot_run(self):
        def refuse(fragment, *args):
            self.refuse(["--names openai", fragment], "--names", "openai",
                        *args, self.out)
        refuse("give --model", self.whole)
        refuse("heads are not 64", "--model", self.model, self.whole)
        refuse("text tower is missing", "--model", self.model, self.image)
        gelu = self.write_json("gelu.json",
                               {**self.config, "quick_gelu": False})
        refuse("has GELU", "--model", gelu, self.whole)

    def test_numbers_that_are_none_or_too_large(self):
        bad = self.weights["ln_final.bias"].copy()
        bad[3] = np.nan
        self.refuse(["ln_final.bias", "element 3"],
                    self.changed(ln_final__bias=bad), self.out, n_ranks=2)
        bad[3] = 1e5
        self.refuse(["ln_final.bias"], "--dtype", "f16",
                    self.changed(ln_final__bias=bad), self.out)

    def test_damage_is_found_before_anything_is_replaced(self):
        h5 = self.dir / "w.h5"
        self.convert(self.whole, h5)
        with h5py.File(h5, "r+") as file:
            file["model/ln_final.bias"][2] += 1
        for n_ranks in (None, 3):
            self.refuse([h5, "ln_final.bias"], h5, self.out, n_ranks=n_ranks)


if __name__ == "__main__":
    cli.main()
