"""Networks that others published and the user brings: wav2vec 2.0 and the SDXL VAE, and our autoencoder in the latter's latent space."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[build]'")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.autoencoder import Autoencoder  # noqa: E402
from flashlips_edge.models.sdxl import SDXLAutoencoder, load_sdxl  # noqa: E402
from flashlips_edge.models.wav2vec import KERNELS, SAMPLES_PER_STEP, STRIDES, load_wav2vec  # noqa: E402
from flashlips_edge.training.distil_autoencoder import DistillationLoss  # noqa: E402
from flashlips_edge.training.distil_autoencoder import main as distil  # noqa: E402
from flashlips_edge.training.loop import Schedule, train  # noqa: E402

WIDTH, HEADS, MLP, CHANNELS, GROUPS = 32, 4, 48, 16, 4


class Published:
    """wav2vec 2.0 base of torch's own layers, small, with random weights and the published names."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        entering = [1] + [CHANNELS] * (len(KERNELS) - 1)
        self.convolutions = [nn.Conv1d(c, CHANNELS, k, s, bias=False) for c, k, s in zip(entering, KERNELS, STRIDES)]
        self.norms = nn.GroupNorm(CHANNELS, CHANNELS), nn.LayerNorm(CHANNELS), nn.LayerNorm(WIDTH)
        self.enter = nn.Linear(CHANNELS, WIDTH)
        self.position = nn.utils.parametrizations.weight_norm(nn.Conv1d(WIDTH, WIDTH, 128, padding=64, groups=GROUPS), dim=2)
        self.layers = [nn.TransformerEncoderLayer(WIDTH, HEADS, MLP, 0.0, "gelu", batch_first=True) for _ in range(2)]
        for module in (*self.convolutions, *self.norms, self.enter, self.position, *self.layers):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3)

    def __call__(self, audio: Tensor) -> Tensor:
        x = audio - audio.mean(1, keepdim=True)
        x = F.pad(x / x.std(1, unbiased=False, keepdim=True), (40, 40))[:, None]
        x = F.gelu(self.norms[0](self.convolutions[0](x)))
        for convolution in self.convolutions[1:]:
            x = F.gelu(convolution(x))
        x = self.enter(self.norms[1](x.transpose(1, 2)))
        x = self.norms[2](x + F.gelu(self.position(x.transpose(1, 2))[:, :, :-1]).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return x.unflatten(1, (-1, 2)).mean(2)

    def save(self, folder: Path) -> None:
        extractor, projection, encoder = "wav2vec2.feature_extractor.", "wav2vec2.feature_projection.", "wav2vec2.encoder."
        modules: dict[str, nn.Module] = {f"{extractor}conv_layers.{i}.conv": c for i, c in enumerate(self.convolutions)}
        modules |= {f"{extractor}conv_layers.0.layer_norm": self.norms[0], f"{projection}layer_norm": self.norms[1]}
        modules |= {f"{projection}projection": self.enter, f"{encoder}layer_norm": self.norms[2]}
        modules |= {f"{encoder}pos_conv_embed.conv": self.position}
        tensors = {"lm_head.weight": torch.zeros(3, WIDTH)}
        for i, layer in enumerate(self.layers):
            prefix = f"{encoder}layers.{i}."
            modules |= {f"{prefix}attention.out_proj": layer.self_attn.out_proj, f"{prefix}layer_norm": layer.norm1}
            modules |= {f"{prefix}feed_forward.intermediate_dense": layer.linear1, f"{prefix}feed_forward.output_dense": layer.linear2}
            modules |= {f"{prefix}final_layer_norm": layer.norm2}
            for letter, weight, bias in zip("qkv", layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)):
                tensors |= {f"{prefix}attention.{letter}_proj.weight": weight, f"{prefix}attention.{letter}_proj.bias": bias}
        tensors |= {f"{prefix}.{name}": value for prefix, module in modules.items() for name, value in module.state_dict().items()}
        save_file({name: value.detach().clone() for name, value in tensors.items()}, folder / "model.safetensors")
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": MLP}
        sizes |= {"num_conv_pos_embedding_groups": GROUPS}
        (folder / "config.json").write_text(json.dumps({**sizes, "conv_dim": [CHANNELS] * 7, "feat_extract_norm": "group"}))


@torch.no_grad()
def test_published_speech_features_mean_what_they_meant(tmp_path: Path) -> None:
    published = Published()
    published.save(tmp_path)
    audio = 0.1 * torch.randn(2, 6 * SAMPLES_PER_STEP) + 0.5
    speech = load_wav2vec(tmp_path)(audio)
    assert speech.shape == (2, 6, WIDTH), "one vector for each step of lips"
    assert torch.allclose(speech, published(audio), atol=1e-4)


def test_a_wav2vec_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="config.json is missing"):
        load_wav2vec(tmp_path)
    Published().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="model.safetensors lacks layers.2"):
        load_wav2vec(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"do_stable_layer_norm": True}))
    with pytest.raises(UserError, match="only base is allowed"):
        load_wav2vec(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without(name: str) -> Callable[[Path], object]:
    """Takes an entry out of a JSON object or a safetensors file."""

    def take(path: Path) -> None:
        if path.suffix == ".json":
            path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))
        else:
            save_file({key: value for key, value in load_file(path).items() if key != name}, path)

    return take


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("config.json", cut, "config.json is damaged or another network's"),
        ("config.json", lambda path: path.write_text("[]"), "config.json is damaged or another network's"),
        ("config.json", without("hidden_size"), "config.json lacks 'hidden_size'"),
        ("config.json", lambda path: path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": -1')), "is damaged"),
        (
            "config.json",
            lambda path: path.write_text(path.read_text().replace('"intermediate_size": 48', '"intermediate_size": 52')),
            "by config",
        ),
        ("model.safetensors", cut, "model.safetensors is damaged or another network's"),
        ("model.safetensors", without("wav2vec2.encoder.layers.0.attention.k_proj.weight"), "model.safetensors is damaged or another"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "model.safetensors is damaged or another network's"),
    ],
)
def test_a_damaged_wav2vec_folder_is_one_sentence(file: str, damage: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    Published().save(tmp_path)
    damage(tmp_path / file)
    with pytest.raises(UserError, match=rf"^--wav2vec {tmp_path}: .*{says}.*; wav2vec 2\.0 base is in config\.json"):
        load_wav2vec(tmp_path)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of the SDXL VAE's kind, tiny and random, as diffusers writes it."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 8, 16, 16],
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=5.0,
    )
    folder = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(folder)
    return folder


def test_the_vae_s_latents_and_pictures_are_diffusers_own(vae_folder: Path) -> None:
    from diffusers import AutoencoderKL

    vae, ours = AutoencoderKL.from_pretrained(vae_folder, low_cpu_mem_usage=False).eval(), load_sdxl(vae_folder)
    image = torch.rand(2, 3, 64, 64)
    latent = ours.encode(image)
    with torch.no_grad():
        assert latent.shape == (2, 4, 8, 8)
        assert torch.allclose(latent, vae.encode(2 * image - 1).latent_dist.mode() * 5.0, atol=1e-5)
        assert torch.allclose(ours.decoder(latent), (vae.decode(latent / 5.0).sample / 2 + 0.5).clamp(0, 1), atol=1e-5)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_a_vae_folder_that_is_none_is_one_sentence(vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="config.json is missing"):
        load_sdxl(tmp_path)
    for file in vae_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(UserError, match="not an AutoencoderKL's"):
        load_sdxl(tmp_path)


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("config.json", cut, "config.json is damaged"),
        ("config.json", lambda path: path.write_text("[]"), "config.json is damaged"),
        (
            "config.json",
            lambda path: path.write_text(path.read_text().replace('"latent_channels": 4', '"latent_channels": 8')),
            "do not fit",
        ),
        ("diffusion_pytorch_model.safetensors", cut, "its files are damaged or do not fit each other"),
        ("diffusion_pytorch_model.safetensors", without("quant_conv.weight"), "lacks quant_conv.weight"),
    ],
)
def test_a_damaged_vae_folder_is_one_sentence(
    file: str, damage: Callable[[Path], object], says: str, vae_folder: Path, tmp_path: Path
) -> None:
    for path in vae_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damage(tmp_path / file)
    with pytest.raises(UserError, match=rf"^--sdxl {tmp_path}: .*{says}.*; it must be the folder of the SDXL VAE"):
        load_sdxl(tmp_path)


def test_distillation_asks_for_the_vae_s_number_of_channels(vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--preset nano: its latents have 16 channels and the SDXL VAE's 4"):
        distil(vae_folder, tmp_path, tmp_path / "out", "nano")
    assert not (tmp_path / "out").exists()


def test_our_autoencoder_comes_nearer_to_the_vae_s_latents(vae_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = load_sdxl(vae_folder)
    student, loss = Autoencoder((8, 8, 16), (0, 0, 1), (0, 0, 1), latent_channels=4), DistillationLoss(vae)
    held_out = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def terms() -> dict[str, float]:
        with torch.no_grad():
            return {name: float(value) for name, value in loss(student, held_out).items()}

    before = terms()
    trained = train("autoencoder", student, Pictures(), loss, Schedule(steps=40, rate=5e-3, warm_up=5), tmp_path, workers=0)
    student.load_state_dict(trained.state_dict())
    assert all(after < before[name] for name, after in terms().items()), "a term of the loss did not fall"
    assert isinstance(vae, SDXLAutoencoder)
    assert not any(parameter.requires_grad for parameter in vae.parameters())


class Pictures:
    """Noise [4, 3, 32, 32] in [0, 1]."""

    def __call__(self, generator) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.from_numpy(generator.random((4, 3, 32, 32), "float32"))
