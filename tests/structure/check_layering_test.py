#!/usr/bin/env python3
"""scripts/check_layering.py finds what it is there to find, and nothing in a tree that is in order."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import check_layering  # noqa: E402


class CheckLayering(unittest.TestCase):
    def faults(self, files):
        """The faults of a tree that holds these files (path -> text)."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            found, count = check_layering.check(root)
            self.assertEqual(count, len(files))
            return found

    def one_fault(self, path, text, words):
        found = self.faults({path: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(words, found[0])
        self.assertTrue(found[0].startswith(path + ":"), found[0])

    def test_a_tree_in_order(self):
        self.assertEqual([], self.faults({
            "include/mdm/core/a.h": "#include <string>\n",
            "include/mdm/ops/layers.h": "#include <torch/nn/module.h>\n#include \"mdm/core/a.h\"\n",
            "include/mdm/models/unet.h": "#include <torch/nn/modules/container/sequential.h>\n",
            "include/mdm/pipeline.h": "#include \"mdm/core/a.h\"\n",
            "src/config/read.cpp": "#include \"mdm/config/a.h\"\n#include \"config/b.h\"\n#include <yaml-cpp/yaml.h>\n",
            "src/models/unet.cpp": "#include \"mdm/ops/layers.h\"\n#include <ATen/ATen.h>\n",
            "apps/sample.cpp": "#include \"mdm/diffusion/pipeline.h\"\n",
        }))

    def test_a_higher_room(self):
        self.one_fault("src/core/a.cpp", "\n#include \"mdm/config/a.h\"\n", ":2: room 'core'")
        self.one_fault("src/models/a.cpp", "#include \"diffusion/private.h\"\n", "'diffusion' is not below it")
        self.one_fault("src/training/a.cpp", "# include \"mdm/serving/a.h\"\n", "'serving' is not below it")

    def test_rooms_side_by_side(self):
        self.one_fault("src/media/a.cpp", "#include \"mdm/text/a.h\"\n", "'text' is not below it")

    def test_unknown_rooms(self):
        self.one_fault("src/utils/a.cpp", "", "there is no room 'utils'")
        self.one_fault("src/core/a.cpp", "#include \"mdm/common/a.h\"\n", "there is no room 'common'")

    def test_private_headers(self):
        self.one_fault("include/mdm/config/a.h", "#include \"core/private.h\"\n", "private header")
        self.one_fault("apps/a.cpp", "#include \"core/private.h\"\n", "private header")

    def test_third_party(self):
        for include in ("yaml-cpp/yaml.h", "spdlog/spdlog.h", "CLI/CLI.hpp", "stb/stb_image.h", "curl/curl.h", "png.h",
                        "nlohmann/json.hpp", "webp/decode.h", "turbojpeg.h", "sentencepiece_processor.h"):
            self.one_fault("include/mdm/media/a.h", f"#include <{include}>\n", "a public header shows")
        self.one_fault("src/models/a.cpp", "#include <spdlog/spdlog.h>\n", "spdlog (<spdlog/spdlog.h>) belongs to core")

    def test_heavy_headers(self):
        self.one_fault("src/models/a.cpp", "#include <torch/torch.h>\n", "ten seconds")
        self.one_fault("include/mdm/models/a.h", "#include <ATen/ATen.h>\n", "ATen/core/Tensor.h is enough")
        self.one_fault("include/mdm/diffusion/a.h", "#include <torch/nn/module.h>\n", "may be seen in")


if __name__ == "__main__":
    unittest.main()
