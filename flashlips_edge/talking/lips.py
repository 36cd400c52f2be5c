"""Lips vectors over time: a track of them indexed by pts, and the track that speech gives."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from flashlips_edge.speech.features import SAMPLES_PER_STEP, STEP_RATE_HZ, steps_of
from flashlips_edge.speech.silence import REACH_STEPS, Fade, speech_steps
from flashlips_edge.talking.networks import Networks

STEP_NS = 1_000_000_000 // STEP_RATE_HZ
CONTEXT_STEPS = 10  # speech heard on either side of a window, so that its edges sound like its middle
LOOK_AHEAD_STEPS = 4  # 160 ms of the speech that follows is heard before a step of live speech is given
LIVE_STEPS = 8  # given from one window of live speech, at most
JOIN_STEPS = 5  # steps in which one window of lips passes into the next


class FaceLips(NamedTuple):
    """What `SpeechToLips` needs to know of a face: reference lips float32 [4, 12], the closed mouth [12], and what is added to lips [12]
    so that they are this face's: lips @ `turn` - `shift`, of [12, 12] and [12]; None: nothing."""

    reference: np.ndarray
    closed: np.ndarray
    turn: np.ndarray | None = None
    shift: np.ndarray | None = None


class LipsTrack:
    """Lips vectors in order of their pts, read at any pts. Written by one thread, read by another; `forget` bounds it."""

    def __init__(self) -> None:
        self._pts_ns: list[int] = []
        self._lips: list[np.ndarray] = []
        self._lock = threading.Lock()

    def append(self, pts_ns: int, lips: np.ndarray) -> None:
        """Add a vector [12]; its pts must be later than all before it, else it is dropped."""
        with self._lock:
            if self._pts_ns and pts_ns <= self._pts_ns[-1]:
                return
            self._pts_ns.append(int(pts_ns))
            self._lips.append(np.asarray(lips, np.float32))

    def at(self, pts_ns: int) -> np.ndarray | None:
        """The vector [12] at a time, linear between its neighbours; the first before the track, the last after it; None if empty."""
        with self._lock:
            after = bisect_right(self._pts_ns, pts_ns)
            if not self._pts_ns:
                return None
            if after == 0:
                return self._lips[0]
            if after == len(self._pts_ns):
                return self._lips[-1]
            start, end = self._pts_ns[after - 1], self._pts_ns[after]
            share = np.float32((pts_ns - start) / (end - start))
            return self._lips[after - 1] * (1 - share) + self._lips[after] * share

    def cut(self, after_ns: int) -> None:
        """Drop the vectors after a time; what they made of the lips at that time becomes the last."""
        lips = self.at(after_ns)
        with self._lock:
            keep = bisect_right(self._pts_ns, after_ns)
            if lips is None or keep == len(self._pts_ns):
                return
            del self._pts_ns[keep:], self._lips[keep:]
            if not keep or self._pts_ns[-1] < after_ns:
                self._pts_ns.append(int(after_ns))
                self._lips.append(lips)

    def forget(self, before_ns: int) -> int:
        """Drop the vectors that no time from `before_ns` on needs; gives how many."""
        with self._lock:
            stale = max(0, bisect_right(self._pts_ns, before_ns) - 1)
            del self._pts_ns[:stale], self._lips[:stale]
            return stale

    @property
    def end_ns(self) -> int:
        """The pts of the last vector, or -1."""
        with self._lock:
            return self._pts_ns[-1] if self._pts_ns else -1


class SpeechToLips:
    """Speech in pieces of any length to lips vectors, 25 a second: log-mel, speech_encoder, audio_to_lips, silence.

    audio_to_lips gives a window of 50 steps from the 10 before it. Here a window holds some steps that were given before,
    `new_steps` new ones and, last, LOOK_AHEAD_STEPS whose speech the new ones are to foresee. The new steps are moved to where the
    last window left off, less and less from step to step, so that no border shows.

    Recorded speech, without `new_steps`, takes windows nearly whole and waits for all that a step depends on: pieces give what the
    whole gives. Live speech comes in chunks of `new_steps`, or of more if more has been pushed at once; a step is there
    (new_steps + look_ahead) * 40 ms after its speech began, at the latest. By the weight of silence the lips go to `closed_lips`.

    What the network says is made the face's own by `turn` and `shift` (`FaceLips`), which the network itself never hears of.
    """

    def __init__(
        self,
        networks: Networks,
        reference_lips: np.ndarray,
        closed_lips: np.ndarray,
        turn: np.ndarray | None = None,
        shift: np.ndarray | None = None,
        *,
        new_steps: int | None = None,
        look_ahead: int = LOOK_AHEAD_STEPS,
    ):
        self._networks = networks
        self.speak_as(reference_lips, closed_lips, turn, shift)
        self._turn, self._shift = self._wanted_turn, self._wanted_shift
        self._look_ahead = look_ahead
        self._least = new_steps or networks.window - JOIN_STEPS - look_ahead
        self._most = max(1, LIVE_STEPS // self._least) * self._least
        self._waits = look_ahead if new_steps else REACH_STEPS
        self._heard = np.zeros(0, np.float32)  # speech kept; its first sample is the start of step _heard_step
        self._heard_step = 0
        self._done = 0  # steps given
        self._ended = False
        self._fade = Fade()
        # The network goes on from its own lips, not from the ones that silence has closed.
        self._own = np.repeat(self._closed_lips[None], networks.previous + networks.window, axis=0)

    def speak_as(
        self, reference_lips: np.ndarray, closed_lips: np.ndarray, turn: np.ndarray | None = None, shift: np.ndarray | None = None
    ) -> None:
        """From the next window on, for this face: `FaceLips`."""
        self._reference_lips = np.asarray(reference_lips, np.float32)
        self._closed_lips = np.asarray(closed_lips, np.float32)
        size = len(self._closed_lips)
        self._wanted_turn = np.zeros((size, size), np.float32) if turn is None else np.asarray(turn, np.float32)
        self._wanted_shift = np.zeros(size, np.float32) if shift is None else np.asarray(shift, np.float32)

    def push(self, waveform: np.ndarray) -> np.ndarray:
        """The lips [n, 12] that this piece, float32 [N] at 16 kHz, makes possible; n may be 0."""
        self._heard = np.concatenate([self._heard, np.asarray(waveform, np.float32)])
        ready = self._heard_step + len(self._heard) // SAMPLES_PER_STEP - self._waits
        lips = self._up_to(self._done + max(0, ready - self._done) // self._least * self._least)
        keep_from = max(self._heard_step, self._done - REACH_STEPS)
        self._heard = self._heard[(keep_from - self._heard_step) * SAMPLES_PER_STEP :]
        self._heard_step = keep_from
        return lips

    def finish(self) -> np.ndarray:
        """The lips [n, 12] of what is left, which need not fill a window; the last step may be a part of 40 ms."""
        self._ended = True
        return self._up_to(self._heard_step + steps_of(len(self._heard)))

    def _up_to(self, end: int) -> np.ndarray:
        """The lips of steps _done to `end`."""
        parts = [np.zeros((0, len(self._closed_lips)), np.float32)]
        while self._done < end:
            count = min(self._most, end - self._done)
            overlap = self._networks.window - self._look_ahead - max(count, self._least)
            window = self._window(self._done - overlap, self._own[-overlap - self._networks.previous : -overlap])
            new = window[overlap : overlap + count]
            if self._done:
                apart = self._own[-1] - window[overlap - 1]
                new = new + apart * np.maximum(0, 1 - np.arange(1, len(new) + 1, dtype=np.float32) / (JOIN_STEPS + 1))[:, None]
            self._own = np.concatenate([self._own, new])[-len(self._own) :]
            weight = self._silence(len(new))[:, None]
            parts.append(self._in_own_way(new) * (1 - weight) + self._closed_lips * weight)
            self._done += len(new)
        return np.concatenate(parts)

    def _in_own_way(self, lips: np.ndarray) -> np.ndarray:
        """Lips [n, 12] as this face opens its mouth; what is newly known of it is taken up over some steps, so that nothing jumps."""
        result = np.empty_like(lips)
        for i, vector in enumerate(lips):
            self._turn = self._turn + (self._wanted_turn - self._turn) / JOIN_STEPS
            self._shift = self._shift + (self._wanted_shift - self._shift) / JOIN_STEPS
            result[i] = vector + vector @ self._turn - self._shift
        return result

    def _silence(self, count: int) -> np.ndarray:
        """The weight of silence [count] of the next steps, judged by their surroundings."""
        first = max(self._heard_step, self._done - REACH_STEPS)
        begin, stop = ((step - self._heard_step) * SAMPLES_PER_STEP for step in (first, self._done + count + REACH_STEPS))
        return self._fade(speech_steps(self._heard[begin:stop])[self._done - first :], count)

    def _window(self, start: int, previous: np.ndarray) -> np.ndarray:
        """The lips [window, 12] from step `start`, which may lie before the speech: that is silence, as after its end.

        previous [P, 12] are the lips just before.
        """
        first, last = start - CONTEXT_STEPS, start + self._networks.window + CONTEXT_STEPS
        if not self._ended:  # what has not been heard yet is left out: silence in its place would close the mouth
            last = min(last, self._heard_step + len(self._heard) // SAMPLES_PER_STEP)
        begin, end = (first - self._heard_step) * SAMPLES_PER_STEP, (last - self._heard_step) * SAMPLES_PER_STEP
        piece = self._heard[max(begin, 0) : max(end, 0)]
        piece = np.pad(piece, (max(-begin, 0), max(end - max(begin, 0) - len(piece), 0)))
        speech = self._networks.speech(piece)[CONTEXT_STEPS : CONTEXT_STEPS + self._networks.window]
        return calmed(self._networks.audio_to_lips(speech, self._reference_lips, previous))


def calmed(lips: np.ndarray) -> np.ndarray:
    """Lips [T, 12] of which each step but the first and the last is half its own and half its neighbours': the network wavers from
    step to step by more than mouths do."""
    result = lips.copy()
    result[1:-1] = lips[1:-1] / 2 + (lips[:-2] + lips[2:]) / 4
    return result
