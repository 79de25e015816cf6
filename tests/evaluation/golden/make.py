"""Makes what evaluation_test compares with: small pictures, and what torch-fidelity, transformers, Pillow and numpy say of
them with weights that both sides draw by the same formula.

usage: make.py    (needs torch, torch-fidelity, transformers, Pillow, scipy, safetensors; writes beside itself)
"""

import hashlib
import io
import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent


def uniform(name, count):
    """Numbers in [-1, 1) that only a name and a place decide: FNV-1a of the name, SplitMix64 of the place."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def drawn(name, shape):
    """A parameter that keeps activations at about their size."""
    u = uniform(name, int(np.prod(shape, dtype=np.int64)))
    if len(shape) <= 1:
        if name.endswith("running_var"):
            u = 1 + 0.5 * u
        elif name.endswith("lambda1") or name.endswith(".weight"):
            u = 1 + 0.2 * u
        else:
            u = 0.1 * u
    else:
        u = u * np.sqrt((6 if name.endswith("conv.weight") else 3) / (np.prod(shape) / shape[0]))
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def draw_into(module):
    state = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            value.copy_(drawn(name, tuple(value.shape)))
    return {name: value for name, value in state.items()}


def write_list(path, state):
    lines = [" ".join([name, *map(str, value.shape)]) for name, value in state.items() if value.is_floating_point()]
    path.write_text("\n".join(lines) + "\n")


def smooth(name, height, width, channels):
    """A picture of a few waves and a little noise, so that its file is small."""
    y, x = np.mgrid[0:height, 0:width]
    out = np.zeros((height, width, channels))
    for c in range(channels):
        k = uniform(f"{name}.{c}", 12)
        for i in range(3):
            out[..., c] += np.sin(k[4 * i] * x / 5 + k[4 * i + 1] * y / 5 + 3 * k[4 * i + 2])
        out[..., c] = 128 + 40 * out[..., c] + 6 * uniform(f"{name}.noise.{c}", height * width).reshape(height, width)
    return np.clip(np.round(out), 0, 255).astype(np.uint8)


def make_pictures(folder):
    folder.mkdir(exist_ok=True)
    Image.fromarray(smooth("odd", 37, 53, 3)).save(folder / "odd.png")
    Image.fromarray(smooth("square", 32, 32, 3)).save(folder / "square.png")
    Image.fromarray(smooth("gray", 48, 64, 1)[..., 0]).save(folder / "gray.jpg", quality=90)
    Image.fromarray(smooth("gray_png", 21, 40, 1)[..., 0]).save(folder / "gray.png")
    Image.fromarray(smooth("alpha", 45, 33, 4), "RGBA").save(folder / "alpha.png")
    Image.fromarray(smooth("photo", 85, 121, 3)).save(folder / "photo.jpg", quality=85)
    large = smooth("large", 90, 140, 3)
    Image.fromarray(large).resize((420, 270), Image.BICUBIC).save(folder / "large.jpg", quality=60)
    return sorted(p for p in folder.iterdir())


def rgb(path):
    return Image.open(path).convert("RGB")


def tensor_of(path):
    return torch.from_numpy(np.array(rgb(path))).permute(2, 0, 1).unsqueeze(0)


def inception_features(pictures, features):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        pass

    template = pathlib.Path(tempfile.mkdtemp()) / "inception.pth"
    original = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None  # there is no file yet
    torch.save({}, template)
    network = FeatureExtractorInceptionV3("inception", ["64", "192", "768", "2048"], str(template))
    FeatureExtractorInceptionV3.load_state_dict = original
    state = draw_into(network)
    write_list(HERE / "inception.txt", state)
    for path in pictures:
        for width, values in zip((64, 192, 768, 2048), network(tensor_of(path))):
            features[f"inception.{width}.{path.name}"] = values[0].numpy()
    # pytorch-fid's and clean-fid's ways to 299 x 299, through the same layers.
    widths, network.features_list = network.features_list, ["2048"]
    import torch_fidelity.feature_extractor_inceptionv3 as module

    for path in pictures[:3]:
        x = tensor_of(path).float()
        other = torch.nn.functional.interpolate(x / 255, size=(299, 299), mode="bilinear", align_corners=False) * 2 - 1
        planes = [Image.fromarray(x[0, c].numpy(), mode="F").resize((299, 299), Image.BICUBIC) for c in range(3)]
        clean = (torch.from_numpy(np.stack([np.asarray(p) for p in planes])).clip(0, 255).unsqueeze(0) - 128) / 128
        for name, ready in (("pytorch-fid", other), ("clean", clean)):
            keep = module.interpolate_bilinear_2d_like_tensorflow1x
            module.interpolate_bilinear_2d_like_tensorflow1x = lambda x, ready=ready, **kw: ready * 128 + 128
            features[f"inception.{name}.{path.name}"] = network(tensor_of(path))[0][0].numpy()
            module.interpolate_bilinear_2d_like_tensorflow1x = keep
    network.features_list = widths


def pillow_digests(pictures):
    digests = {}
    for path in pictures:
        for size in ((224, 224), (64, 91), (17, 5), (300, 20)):
            data = rgb(path).resize(size, Image.BICUBIC).tobytes()
            digests[f"{path.name} {size[0]} {size[1]}"] = hashlib.sha256(data).hexdigest()
    return digests


CAPTIONS = [
    "a fox in the snow",
    "A  Fox,\tin   THE snow!",
    "the dog's fox isn't in the snow; they're there, I've seen, I'm sure, we'll go, he'd go",
    "it's 2024: 12 foxes & 3.14 dogs (really?)",
    "Ein Fuchs läuft über die Brücke, größer als ÜBER",
    "e\u0301te\u0301 is \u00e9t\u00e9",
    "\u0130stanbul \u0131\u015f\u0131k \u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3",
    "\u65e5\u672c\u8a9e \u306e \u30ad\u30c4\u30cd\u3068\u96ea",
    "\U0001F98A in \u2744\ufe0f snow \u2603",
    "no\u00a0break\u2003space\u200bzero \u0085 next\u3000wide",
    "\u0661\u0662\u0663 \u00bd \u2167 \u00b2",
    "<|endoftext|> a fox <|startoftext|>snow",
    "'s 't''s 'S \u2019s ''",
    "",
    "   ",
    "!!!...---",
    "x" * 300,
    "the fox and the dog in the snow " * 12,
    "\u2126 \u212b \ufb01sh \u1e9e \u01c5",
]


def train_vocabulary(folder):
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=100000, min_frequency=2, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS * 2, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    letters = [chr(c) for c in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]]
    letters += [chr(0x100 + i) for i in range(256 - len(letters))]
    words = letters + [letter + "</w>" for letter in letters]
    merges = []
    for merge in learned:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left in words and right in words and left + right not in words:
            words.append(left + right)
            merges.append(f"{left} {right}")
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return words, merges


def clip_expected(pictures, features):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = HERE / "clip"
    words, merges = train_vocabulary(folder)
    vocabulary = {w: i for i, w in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges])
    config = {
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": {
            "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64,
            "vocab_size": len(words), "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2,
        },
        "vision_config": {
            "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 96,
            "image_size": 64, "patch_size": 16,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model = CLIPModel(CLIPConfig(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    write_list(HERE / "clip.txt", draw_into(model))
    tokens = [tokenizer(c, truncation=True, max_length=77)["input_ids"] for c in CAPTIONS]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    scores = {}
    with torch.no_grad():
        texts = []
        for i, ids in enumerate(tokens):
            output = model.get_text_features(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
            output = output if torch.is_tensor(output) else output.pooler_output
            features[f"clip.text.{i}"] = output[0].numpy()
            texts.append(output[0])
        for i, path in enumerate(pictures):
            x = processor(images=rgb(path), return_tensors="pt")["pixel_values"]
            output = model.get_image_features(x)
            output = output if torch.is_tensor(output) else output.pooler_output
            features[f"clip.image.{path.name}"] = output[0].numpy()
            scores[path.name] = 100 * torch.cosine_similarity(output[0], texts[i], dim=0).item()
    return {"captions": CAPTIONS, "tokens": tokens, "scores": scores}


def dinov2_expected(pictures, features):
    from transformers import Dinov2Config, Dinov2Model

    folder = HERE / "dinov2"
    folder.mkdir(exist_ok=True)
    config = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "image_size": 70, "patch_size": 14}
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", **config}, indent=1) + "\n")
    model = Dinov2Model(Dinov2Config(**config)).eval()
    with tempfile.TemporaryDirectory() as saved:  # whose names are those of the published files
        from safetensors.torch import load_file, save_file

        model.save_pretrained(saved)
        path = pathlib.Path(saved) / "model.safetensors"
        state = {name: drawn(name, tuple(value.shape)) for name, value in load_file(path).items()}
        write_list(HERE / "dinov2.txt", state)
        save_file(state, path, metadata={"format": "pt"})
        model = Dinov2Model.from_pretrained(saved).eval()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        for path in pictures:
            x = torch.from_numpy(np.array(rgb(path).resize((224, 224), Image.BICUBIC))).float() / 255
            x = ((x - mean) / deviation).permute(2, 0, 1).unsqueeze(0)
            features[f"dinov2.{path.name}"] = model(x).pooler_output[0].numpy()


def feature_set(name, count, width):
    """Features with correlations: (count, width) float64."""
    mix = uniform("mix", width * width).reshape(width, width)
    return 0.5 + uniform(name, count * width).reshape(count, width) @ mix * 0.1


def distances():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torchmetrics.image.fid import _compute_fid

    out = {}
    for count, width in ((300, 64), (300, 192), (40, 64)):
        a = torch.from_numpy(feature_set("a", count, width))
        b = torch.from_numpy(feature_set("b", count, width) * 1.1 + 0.02)
        key = f"{count}x{width}"
        first, second = fid_features_to_statistics(a), fid_features_to_statistics(b)
        out[f"fid {key}"] = fid_statistics_to_metric(first, second, False)["frechet_inception_distance"]
        out[f"torchmetrics fid {key}"] = _compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)).item()
        kid = kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=count, verbose=False, kid_degree=3)
        out[f"kid {key}"] = float(kid["kernel_inception_distance_mean"])
        both = prc_features_to_metric(a, b, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False)
        out[f"precision {key}"], out[f"recall {key}"] = both["precision"], both["recall"]
    return out


def statistics_files():
    features = feature_set("a", 9, 4)
    mu, sigma = features.mean(0), np.cov(features, rowvar=False)
    np.savez_compressed(HERE / "pytorch_fid.npz", mu=mu, sigma=sigma)
    np.savez(HERE / "edm.npz", mu=mu, sigma=np.asfortranarray(sigma + np.triu(np.ones((4, 4)), 1)))
    return {"mu": mu.tolist(), "sigma": sigma.tolist()}


def main():
    torch.set_num_threads(1)
    pictures = make_pictures(HERE / "pictures")
    features, expected = {}, {}
    with torch.no_grad():
        inception_features(pictures, features)
    expected["pillow"] = pillow_digests(pictures)
    expected["clip"] = clip_expected(pictures, features)
    dinov2_expected(pictures, features)
    expected["distances"] = distances()
    expected["statistics"] = statistics_files()
    np.savez_compressed(HERE / "features.npz", **features)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
