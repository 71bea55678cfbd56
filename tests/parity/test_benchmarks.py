#!/usr/bin/env python3
"""The tables of benchmarks against the facts that they were made from
(golden/benchmarks.json.xz), and classes named after folders."""

import json
import lzma
import re

import magmax_cli as cli

# Not among the stored facts: names that the data sets' own files give.
OWN_CLASSES = {"CIFAR100": 100, "STL10": 10, "FashionMNIST": 10, "EuroSAT": 10}
ALL_80 = ["CUB200", "DomainNet", "ImageNet", "ImageNetR"]
E_ARG, E_VALUE = 1, 4


def named(rule, folder, names=None):
    """A class's name by the stored rule."""
    if rule is None:
        return folder
    if rule.startswith("split CamelCase"):
        name = " ".join(re.findall("[A-Z][a-z]*", folder)).lower()
        return names[name + " area" if name.endswith("al") else name]
    drop = {"drop the first four": 4, "drop the first two": 2}
    n = sum(n for words, n in drop.items() if rule.startswith(words))
    assert rule.endswith("underscores to spaces"), rule
    return folder[n:].replace("_", " ")


class Benchmarks(cli.Case):
    @classmethod
    def setUpClass(cls):
        packed = (cli.SOURCE / "tests/golden/benchmarks.json.xz").read_bytes()
        cls.facts = json.loads(lzma.decompress(packed))
        for facts in cls.facts.values():
            for key, value in cls.facts.get(facts.get("same_as"), {}).items():
                facts.setdefault(key, value)
        cls.tables = cli.run_ok("benchmark_tool").json()

    def name_class(self, benchmark, folder):
        proc = cli.run("benchmark_tool", "name", benchmark, folder)
        return proc.returncode, proc.stdout

    def test_every_stored_benchmark_is_there(self):
        self.assertEqual(sorted(self.tables),
                         sorted([*self.facts, "FashionMNIST"]))

    def test_lists_and_orders_are_the_stored_ones(self):
        for name, facts in self.facts.items():
            for key in ("prompts", "class_names", "class_folders", "domains",
                        "class_order", "domain_order"):
                if key not in facts and name in OWN_CLASSES:
                    continue
                with self.subTest(benchmark=name, key=key):
                    self.assertEqual(self.tables[name][key],
                                     facts.get(key, []))

    def test_orders_hold_every_place_once(self):
        for name, table in self.tables.items():
            for key in ("class_order", "domain_order"):
                self.assertEqual(sorted(table[key]),
                                 list(range(len(table[key]))), (name, key))
            if table["class_order"] and table["classes"]:
                self.assertEqual(len(table["class_order"]),
                                 len(table["classes"]), name)

    def test_every_prompt_has_one_place_for_the_class(self):
        for name, table in self.tables.items():
            self.assertTrue(table["prompts"], name)
            for prompt in table["prompts"]:
                self.assertEqual(prompt.count("{}"), 1, (name, prompt))

    def test_classes_follow_from_names_or_folders(self):
        for name, facts in self.facts.items():
            classes = self.tables[name]["classes"]
            if "class_folders" in facts:
                expected = [named(facts["class_name_rule"], folder)
                            for folder in facts["class_folders"]]
            elif name in OWN_CLASSES:
                self.assertEqual(len(classes), OWN_CLASSES[name])
                continue
            else:
                expected = facts.get("class_names")
            self.assertEqual(classes, expected, name)

    def test_cifar100_has_the_names_of_its_files_in_order(self):
        names = self.tables["CIFAR100"]["classes"]
        self.assertEqual(names, sorted(set(names)))
        self.assertIn("aquarium_fish", names)

    def test_classes_are_named_after_their_folders(self):
        folders = {
            "CUB200": ["001.Black_footed_Albatross", "200.Common_Yellowthroat"],
            "CUB200CustomTemplates": ["112.Great_Grey_Shrike"],
            "SUN397": ["a_abbey", "b_barn_outdoor"],
            "DTD": ["cobwebbed", "polka_dotted"],
            "RESISC45": ["baseball_diamond"],
            "ImageNetR": ["African_chameleon"],
            "EuroSAT": self.tables["EuroSAT"]["class_folders"],
        }
        for name, names in folders.items():
            facts = self.facts[name]
            for folder in names:
                self.assertEqual(
                    self.name_class(name, folder),
                    (0, named(facts["class_name_rule"], folder,
                              facts.get("class_name_map"))))

    def test_a_folder_that_cannot_be_is_an_error(self):
        code, text = self.name_class("CUB200", "001.")
        self.assertEqual(code, E_VALUE)
        self.assertIn("the folder '001.' is not a class of CUB200", text)
        code, text = self.name_class("EuroSAT", "Rivers")
        self.assertEqual(code, E_VALUE)
        self.assertIn("did you mean River?", text)

    def test_an_unknown_benchmark_names_the_known_ones(self):
        code, text = self.name_class("CIFAR-10", "x")
        self.assertEqual(code, E_ARG)
        self.assertIn("unknown benchmark 'CIFAR-10'; did you mean CIFAR10?",
                      text)
        for name in self.tables:
            self.assertIn(name, text)

    def test_shared_prompts_are_shared(self):
        prompts = [self.tables[name]["prompts"] for name in ALL_80]
        self.assertEqual(len(prompts[0]), 80)
        self.assertEqual(prompts, prompts[:1] * len(prompts))


if __name__ == "__main__":
    cli.main()
