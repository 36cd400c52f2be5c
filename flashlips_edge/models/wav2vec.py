"""The speech encoder of preset paper: wav2vec 2.0 base (Baevski et al. 2020), with weights that the user gives (FlashLips, section 3.4)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.models.layers import Attention

SAMPLES_PER_STEP = 640  # at 16 kHz, for 25 steps a second
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # one feature for every 320 samples, from 400
MARGIN = 40  # samples added on both sides, which makes two features of each step


class Wav2VecLayer(nn.Module):
    """Post-norm transformer layer: x [B, L, width] -> the same."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_attention(x + self.attention(x))
        return self.norm_mlp(x + self.mlp(x))


class Wav2Vec(nn.Module):
    """audio [B, 640*T], 16 kHz -> speech [B, T, width]: the last layer's features, the two of each 40 ms step averaged."""

    def __init__(self, width: int = 768, layers: int = 12, heads: int = 12, mlp: int = 3072, channels: int = 512, groups: int = 16) -> None:
        super().__init__()
        entering = [1] + [channels] * (len(KERNELS) - 1)
        self.convolutions = nn.ModuleList(nn.Conv1d(c, channels, k, s, bias=False) for c, k, s in zip(entering, KERNELS, STRIDES))
        self.norm_first = nn.GroupNorm(channels, channels)  # each channel over time
        self.norm_features = nn.LayerNorm(channels)
        self.enter = nn.Linear(channels, width)
        self.position = nn.Conv1d(width, width, 128, padding=64, groups=groups)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Wav2VecLayer(width, heads, mlp) for _ in range(layers))

    def forward(self, audio: Tensor) -> Tensor:
        centred = audio - audio.mean(1, keepdim=True)
        x = F.pad(centred * (centred.square().mean(1, keepdim=True) + 1e-7).rsqrt(), (MARGIN, MARGIN))[:, None]
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            x = F.gelu(self.norm_first(x) if index == 0 else x)  # [B, channels, 2*T] at last
        x = self.enter(self.norm_features(x.transpose(1, 2)))
        position = self.position(x.transpose(1, 2))[:, :, :-1]  # an even kernel gives one too many
        x = self.norm(x + F.gelu(position).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)


NAMES = (  # of the published files, and ours
    (r"feature_extractor\.conv_layers\.0\.layer_norm\.", "norm_first."),
    (r"feature_extractor\.conv_layers\.(\d)\.conv\.", r"convolutions.\1."),
    (r"feature_projection\.layer_norm\.", "norm_features."),
    (r"feature_projection\.projection\.", "enter."),
    (r"encoder\.pos_conv_embed\.conv\.", "position."),
    (r"encoder\.layer_norm\.", "norm."),
    (r"encoder\.layers\.(\d+)\.attention\.out_proj\.", r"layers.\1.attention.project."),
    (r"encoder\.layers\.(\d+)\.layer_norm\.", r"layers.\1.norm_attention."),
    (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.", r"layers.\1.mlp.0."),
    (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.", r"layers.\1.mlp.2."),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.norm_mlp."),
    (r"encoder\.layers\.(\d+)\.attention\.([qkv])_proj\.", r"layers.\1.attention.\2."),
)

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")  # in config.json
ADVICE = "wav2vec 2.0 base is in config.json and model.safetensors, as Hugging Face publishes them"


def load_wav2vec(folder: Path) -> Wav2Vec:
    """The network with the weights in ``folder``: config.json and model.safetensors as Hugging Face publishes them.

    Raises:
        UserError: a file is missing or damaged, or the network is not of the base kind.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"--wav2vec {folder}: {name} is missing; {ADVICE}")
    model, tensors = _empty(folder), _tensors(folder)
    wanted = model.state_dict()
    if missing := [name for name in wanted if name not in tensors]:
        raise UserError(f"--wav2vec {folder}: model.safetensors lacks {missing[0]} and {len(missing) - 1} more of wav2vec 2.0 base")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            words = f"{name} in model.safetensors is {list(tensors[name].shape)}, and {list(value.shape)} by config.json"
            raise UserError(f"--wav2vec {folder}: {words}; {ADVICE}")
    model.load_state_dict({name: tensors[name] for name in wanted})
    return model.eval().requires_grad_(False)


def _empty(folder: Path) -> Wav2Vec:
    """The network of the sizes that config.json has."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        first = config.get("do_stable_layer_norm") or config.get("feat_extract_norm", "group") != "group"
        sizes = [*(config[name] for name in SIZES), config["conv_dim"][0], config["num_conv_pos_embedding_groups"]]
        model = None if first else Wav2Vec(*map(int, sizes))
    except KeyError as error:
        raise UserError(f"--wav2vec {folder}: config.json lacks {error}; {ADVICE}") from None
    except Exception:  # torch has many words for sizes that cannot be
        raise UserError(f"--wav2vec {folder}: config.json is damaged or another network's; {ADVICE}") from None
    if model is None:
        raise UserError(f"--wav2vec {folder}: its layers normalise first, as wav2vec 2.0 large; only base is allowed")
    return model


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Those of model.safetensors by our names."""
    try:
        return renamed(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, KeyError, RuntimeError):
        raise UserError(f"--wav2vec {folder}: model.safetensors is damaged or another network's; {ADVICE}") from None


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published names to ours: q, k and v become one matrix, and the weight-normalised position convolution a plain one."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = name.removeprefix("wav2vec2.")
        for theirs, pattern in NAMES:
            ours = re.sub(f"^{theirs}", pattern, ours)
        result[ours] = tensor
    direction = result.pop("position.weight_v", result.pop("position.parametrizations.weight.original1", None))
    length = result.pop("position.weight_g", result.pop("position.parametrizations.weight.original0", None))
    if direction is not None and length is not None:
        result["position.weight"] = length * direction / direction.norm(dim=(0, 1), keepdim=True)
    for name in [n for n in result if ".attention.q." in n]:
        parts = [result.pop(name.replace(".q.", f".{letter}.")) for letter in "qkv"]
        result[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return result
