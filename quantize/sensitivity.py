"""What each layer alone costs at low precision: on the picture's mouth box, the lips vector, and the lips from speech."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from quantize.answers import Quality
from quantize.layers import Layer
from quantize.workbench import Workbench


@dataclass(frozen=True)
class Damage:
    """picture: mean square error of the mouth box, in levels; lips and spoken: one less the cosine, one less the correlation."""

    picture: float
    lips: float
    spoken: float

    @staticmethod
    def of(quality: Quality) -> Damage:
        picture = 0.0 if quality.mouth_db >= 120 else 255**2 / 10 ** (quality.mouth_db / 10)
        return Damage(picture, max(0.0, 1 - quality.lips), max(0.0, 1 - quality.opening))


def measure(bench: Workbench, journal: Path) -> dict[Layer, Damage]:
    """Every layer alone, the rest as it was. What ``journal`` already holds is not measured again."""
    done = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            done[entry["graph"], entry["layer"]] = Damage(**entry["damage"])
    damages = {}
    with open(journal, "a", encoding="utf-8") as file:
        for layer in tqdm(bench.layers, "layers alone", unit="layer", leave=False):
            key = (layer.graph, layer.name)
            if key not in done:
                done[key] = Damage.of(bench.quality({layer.graph: bench.quantised(layer.graph, {layer})}))
                file.write(json.dumps({"graph": layer.graph, "layer": layer.name, "damage": asdict(done[key])}) + "\n")
                file.flush()
            damages[layer] = done[key]
    return damages
