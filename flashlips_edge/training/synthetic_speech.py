"""Speech of espeak-ng in many voices and languages, with the lips that its phonemes ask for.

Nothing is rendered: what the lips encoder would see on the synthetic head is a regression from the head's true parameters, fitted
on the stills of synthetic people that the clips hold.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.training.clips import Clip
from flashlips_edge.training.speech_tracks import SYNTHETIC, Lips, Track, with_margins
from flashlips_edge.training.synthetic_head import lips_track, speak
from flashlips_edge.training.synthetic_head.lips import Lips as Parameters

PEOPLE = 150  # whose stills the regression is fitted on
RIDGE = 1e-3
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
SENTENCES = {
    "en-gb": (
        "The blue boat sails past the old harbour before the evening fog comes in.",
        "Could you move my bag a bit further up, please?",
        "Five brown mugs were put above the fireplace; nobody ever used them.",
        "She showed the children which shells to choose, and why.",
        "We have three apples, four pears and a very ripe mango.",
        "Both of them thought that the weather would be worse on Thursday.",
        "Turn left at the bakery, go up the hill, and you will see our house.",
    ),
    "en-us": (
        "My mother bought a purple umbrella and forgot it on the bus.",
        "Place the red pen by the window now, and bring me two more.",
        "How long have you been waiting for the number eleven?",
        "Nobody moved when the big brown bear walked out of the woods.",
        "Just push the green button, wait a moment, then pull the lever.",
        "Whoever wants to join us should be here by half past five.",
    ),
    "de": (
        "Am Abend fuhren wir mit dem Boot über den breiten Fluss.",
        "Bitte bringen Sie mir ein Brot, zwei Brötchen und einen Apfel.",
        "Früher wohnten hier vier Fischer mit ihren Familien.",
        "Möchtest du morgen mit uns ins Museum gehen?",
        "Die Sonne scheint schon seit Stunden, und niemand arbeitet.",
        "Schöne Bücher soll man öfter lesen.",
    ),
    "fr-fr": (
        "Ma petite voiture bleue ne veut plus démarrer ce matin.",
        "Pouvez-vous parler un peu plus fort, s'il vous plaît?",
        "Nous avons bu un bon café au bord de la mer.",
        "Le boulanger ouvre sa boutique vers six heures et demie.",
        "Il faut beaucoup de patience pour apprendre une langue.",
    ),
    "es": (
        "Mi abuela prepara la mejor sopa de pueblo que conozco.",
        "Por favor, abre la ventana, que hace mucho calor.",
        "Vamos a viajar juntos por toda la costa en febrero.",
        "El niño buscaba su perro debajo de la mesa.",
        "Nunca olvidaré aquella noche de verano.",
    ),
    "it": (
        "Domani mattina compriamo pane, pomodori e formaggio fresco.",
        "Che bella giornata per fare una passeggiata in montagna!",
        "Il mio vicino suona il violino ogni sabato pomeriggio.",
        "Vorrei un bicchiere d'acqua e un pezzo di torta.",
    ),
    "nl": (
        "Mijn broer werkt al vijf jaar bij een bakker in de buurt.",
        "Wil je morgen met de fiets of met de bus naar huis?",
        "Boven op de berg waaide een frisse wind.",
        "Vroeger voeren hier veel boten voorbij.",
    ),
    "pt": (
        "O meu pai gosta de beber café com pão e manteiga.",
        "Amanhã vamos visitar uma pequena fábrica de sapatos.",
        "Ninguém sabia abrir aquela porta vermelha.",
        "Podes fechar a janela, por favor?",
    ),
}


class Face:
    """The mean synthetic face: true parameters to lips vectors, by ridge regression about each person's own mean."""

    def __init__(self, parameters: list[np.ndarray], lips: list[np.ndarray]) -> None:
        """parameters [T, 6] and lips [T, 12] of each person."""
        features = [_features(p) for p in parameters]
        x, y = (np.concatenate([v - v.mean(0) for v in values]) for values in (features, lips))
        self._weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)  # [27, 12]
        self._features, self._lips = np.concatenate(features).mean(0), np.concatenate(lips).mean(0)
        self.explained = 1 - float(np.square(y - x @ self._weights).sum() / np.square(y).sum())

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """Lips vectors float32 [T, 12] of true parameters [T, 6]."""
        return ((_features(parameters) - self._features) @ self._weights + self._lips).astype(np.float32)


def fit_face(clips: list[Clip], lips: Lips) -> Face:
    """The regression on the stills of synthetic people in ``clips``. UserError where there are none."""
    people = [c for c in clips if c.params is not None][:PEOPLE]
    if not people:
        raise UserError("--clips holds no synthetic people; run python -m flashlips_edge.training.synthetic_clips, or give --synthetic 0")
    stills = tqdm(people, desc="synthetic people", unit="person")
    return Face([np.asarray(c.params) for c in people], [lips(c.crops) for c in stills])


def visible(track: Iterable[Parameters]) -> np.ndarray:
    """What is seen of lips parameters, float32 [T, 6]: behind pressed or tucked lips the jaw does not count."""
    return np.float32([[p.jaw * (1 - p.press) * (1 - p.tuck), *p.vector()[1:]] for p in track])


def synthetic_tracks(count: int, face: Face, opening: np.ndarray, emotions: int, seed: int = 0) -> list[Track]:
    """``count`` sentences, each by another voice, as tracks marked SYNTHETIC. UserError without espeak-ng."""
    generator = np.random.default_rng(seed)
    sentences = [(language, text) for language, texts in SENTENCES.items() for text in texts]
    tracks = []
    for i in range(count):
        language, text = sentences[i % len(sentences)]
        waveform, phonemes = speak(
            text,
            language + str(generator.choice(VARIANTS)),
            words_per_minute=int(generator.integers(110, 220)),
            pitch=int(generator.integers(15, 85)),
        )
        emotion = np.zeros(emotions, np.float32)
        emotion[SYNTHETIC] = 1
        tracks.append(with_margins(f"synthetic.{language}.{i}", waveform, face(visible(lips_track(phonemes))), emotion, opening))
    return tracks


def _features(parameters: np.ndarray) -> np.ndarray:
    """Parameters [T, 6], their squares and their products: [T, 27]."""
    rows, columns = np.triu_indices(parameters.shape[1])
    return np.concatenate([parameters, parameters[:, rows] * parameters[:, columns]], 1).astype(np.float64)
