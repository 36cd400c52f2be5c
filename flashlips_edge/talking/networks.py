"""The graphs of a bundle as functions on batches: pictures and lips vectors in, pictures and lips vectors out."""

from __future__ import annotations

from functools import cached_property
from math import floor
from pathlib import Path

import cv2
import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.choice import Engine, shared_engine
from flashlips_edge.engines.tensorrt import TensorRtEngine
from flashlips_edge.face.crop import MOUTH
from flashlips_edge.speech.features import log_mel
from flashlips_edge.talking.chain import Chain, HostChain, device_chain
from flashlips_edge.talking.pictures import onto_crops, to_network

LIPS_SIZE = 12  # length of a lips vector
KERNELS = "cubins/manifest.json"
N_REFERENCES = 4
ROWS_ABOVE = 2  # latent rows decoded above the pasted region; the editor was trained through the same cut


class Networks:
    """The six graphs, each loaded when it is first used. S is the crop's size, C, h, w the latent's.

    Loaded graphs are shared by all Networks of one bundle and thread count in this process, and may run in several threads at once.
    """

    def __init__(self, bundle: Bundle, threads: int = 2):
        self.bundle = bundle
        self.crop_size = bundle.crop_size
        self._threads = threads
        self._engines: dict[str, Engine] = {}
        sizes = bundle.manifest["audio_to_lips"]
        self.window = int(sizes["window"])  # steps of one audio_to_lips run
        self.previous = int(sizes["previous"])  # steps it takes from before the window
        self.emotion_size = int(sizes["emotion"])

    def engine(self, graph_name: str) -> Engine:
        """The loaded graph of that name."""
        if graph_name not in self._engines:
            self._engines[graph_name] = shared_engine(self.bundle, graph_name, self._threads)
        return self._engines[graph_name]

    def load(self, *graph_names: str) -> None:
        """Load these graphs now, so that the first frame does not wait for them."""
        for graph_name in graph_names:
            self.engine(graph_name)

    @cached_property
    def chain(self) -> Chain:
        """The picture graphs one after the other, on the GPU from end to end if that is where they are."""
        encoder, editor, decoder = (self.engine(name) for name in ("latent_encoder", "editor", "latent_decoder"))
        if isinstance(encoder, TensorRtEngine) and isinstance(editor, TensorRtEngine) and isinstance(decoder, TensorRtEngine):
            return device_chain(encoder, editor, decoder, self._first_row(editor.largest["latent"][2]), self._kernels())
        return HostChain(self.encode, self.edit)

    def _kernels(self) -> Path | None:
        """The folder of kernels, if it is the bundle's own: its manifest, as the bundle's has it, has the sha256 of each."""
        if KERNELS not in self.bundle.manifest["files"]:
            return None
        self.bundle.read(KERNELS)
        return (self.bundle.folder / KERNELS).parent

    def encode(self, crops: np.ndarray) -> np.ndarray:
        """Latents float32 [B, C, h, w] of crops uint8 [B, S, S, 3]."""
        return self._run("latent_encoder", image=to_network(crops))["latent"]

    def edit(self, crops: np.ndarray, latents: np.ndarray, reference_latents: np.ndarray, lips: np.ndarray) -> np.ndarray:
        """Pictures float32 [B, S, S, 3], 0 to 255, of crops uint8 [B, S, S, 3] that speak lips [B, 12].

        latents [B, C, h, w] are the crops', reference latents [B, 4C, h, w] of the same face. Above the mouth the pictures are
        the crops' own.
        """
        edited = self._run("editor", latent=latents, reference_latents=reference_latents, lips=lips)["edited_latent"]
        first_row = self._first_row(edited.shape[2])
        images = self._run("latent_decoder", edited_latent=edited[:, :, first_row:])["image"]  # [B, 3, S', S]
        return onto_crops(crops, images)

    def lips(self, crops: np.ndarray) -> np.ndarray:
        """Lips vectors float32 [B, 12] of crops uint8 [B, S, S, 3]."""
        side = self.engine("lips_encoder").input_shapes["face"][-1]
        faces = np.stack([cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in crops])
        return self._run("lips_encoder", face=to_network(faces))["lips"]

    def speech(self, waveform: np.ndarray) -> np.ndarray:
        """Speech float32 [T, D] of a waveform float32 [640 T] at 16 kHz: one row for every 40 ms."""
        hears_waveforms = len(self.engine("speech_encoder").input_shapes["audio"]) == 2  # wav2vec 2.0; ours hear log-mel
        return self._run("speech_encoder", audio=(waveform if hears_waveforms else log_mel(waveform))[None])["speech"][0]

    def audio_to_lips(self, speech: np.ndarray, reference_lips: np.ndarray, previous_lips: np.ndarray) -> np.ndarray:
        """The most likely lips [window, 12] for speech [window, D]: zero noise, neutral emotion.

        reference_lips [4, 12] are of the face that will speak, previous_lips [previous, 12] are the ones just before the window.
        """
        return self._run(
            "audio_to_lips",
            noise=np.zeros((1, self.window, LIPS_SIZE), np.float32),
            speech=speech[None],
            emotion=np.zeros((1, self.emotion_size), np.float32),
            reference_lips=reference_lips[None],
            previous_lips=previous_lips[None],
        )["lips"][0]

    def _first_row(self, rows: int) -> int:
        """The first row of a latent that is decoded: two above what is pasted, if the decoder takes parts of latents."""
        if isinstance(self.engine("latent_decoder").input_shapes["edited_latent"][2], int):
            return 0
        return max(0, floor((MOUTH.centre_y - MOUTH.radius_y) * rows) - ROWS_ABOVE)

    def _run(self, graph_name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return self.engine(graph_name).run(inputs)
