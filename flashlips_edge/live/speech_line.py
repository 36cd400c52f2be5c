"""Pushed sound on its way to the ear and to the lips: both are given their place in media time here, together.

A sentence is held back until its first lips are known, then its sound goes on as it comes and its lips follow. Where nothing is
pushed in time the lips hear silence, step by step, so that the mouth closes and what comes next is placed after it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.live.inflow import Inflow
from flashlips_edge.live.pcm import mono
from flashlips_edge.live.sentence import Push, Sentence
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.mailbox import Mailbox
from flashlips_edge.pump.playback import Playback
from flashlips_edge.pump.recent import Recent
from flashlips_edge.speech.features import SAMPLE_RATE_HZ, SAMPLES_PER_STEP
from flashlips_edge.speech.silence import FADE_STEPS, HOLD_STEPS
from flashlips_edge.talking.lips import STEP_NS, FaceLips, LipsTrack, SpeechToLips
from flashlips_edge.talking.networks import Networks

LOOK_AHEAD_STEPS = 2  # 80 ms of the speech that follows are heard before a step of lips is given ...
AT_ONCE_NS = SECOND_NS // 2  # ... unless at least this much is pushed at once:
MORE_LOOK_AHEAD_STEPS = 4
WAITING = 16_384  # pushes that wait to be taken up: what WAITING_NS allows, in pieces of 20 ms
TAKEN_AT_ONCE = 64  # of them, in one poll
WAITING_NS = 300 * SECOND_NS  # sound that waits to be heard, at most
MARGIN_NS = 50_000_000  # from the first lips of a sentence to its first sound: a picture is made in between
URGENT_NS = 20_000_000  # lips that are missing this soon before they are heard hear silence instead of waiting
AHEAD_NS = 2 * SECOND_NS  # lips are made this far ahead at most: an interruption throws them away
PROMPT_NS = SECOND_NS // 3  # sound that waits for less other sound than this is timed
AT_ONCE_STEPS = 25  # of lips, in one poll
LISTEN_NS = 10_000_000  # between two looks at what a sentence under way needs
CLOSING_NS = (HOLD_STEPS + FADE_STEPS + MORE_LOOK_AHEAD_STEPS + 1) * STEP_NS  # silence that ends a sentence
CUT_NS = FADE_STEPS * STEP_NS  # from any lips to the closed mouth at an interruption
DRIVEN_HOLD_NS = SECOND_NS  # how long the lips of another face stay when no more come
KEPT_NS = SECOND_NS  # of lips that were seen


class SpeechLine:
    """`push`, `end_sentence` and `interrupt` come from any thread; `poll` from one."""

    def __init__(self, networks: Networks, playback: Playback, face: Callable[[], FaceLips], clock: Clock):
        self.counters = Counters()  # of steps of lips: made, seen and forgotten, late ones came after they should have been seen
        self.latency_ms = Recent(250)  # from pushing sound to hearing it, for sound that did not wait for other sound
        self.epoch = 0
        self._networks, self._playback, self._face, self._clock = networks, playback, face, clock
        self._lips = LipsTrack()  # in media time
        self._pushes: Mailbox[Push] = Mailbox(clock, WAITING, newest_wins=False)
        self._waiting_ns = 0  # sound in the mailbox
        self._lock = threading.Lock()
        self._sentence: Sentence | None = None
        self._heard: deque[tuple[int, int]] = deque(maxlen=512)  # media time and clock time of pushes whose sound is yet to be heard
        self._driven = False  # the lips come from another face: sound is only heard
        self._inflow: Inflow | None = None  # of sound that is only heard
        self._wake: Callable[[], None] = lambda: None

    @property
    def pushes(self) -> Counters:
        """What was pushed, dropped (by an interruption) and taken up."""
        return self._pushes.counters

    def on_push(self, wake: Callable[[], None]) -> None:
        """Whom to tell that there is something to do."""
        self._wake = wake

    def push(self, pcm: np.ndarray, sample_rate_hz: int) -> None:
        """More speech. UserError names what is wrong with it, or that too much waits already."""
        samples = mono(pcm, sample_rate_hz)
        sample_rate_hz = int(sample_rate_hz)
        waits_ns = self.waiting_ns
        length_ns = len(samples) * SECOND_NS // sample_rate_hz
        if waits_ns + length_ns > WAITING_NS:
            raise UserError(
                f"push_audio: {waits_ns / SECOND_NS:.0f} s of sound wait to be heard and {length_ns / SECOND_NS:.0f} s more were pushed; "
                f"{WAITING_NS // SECOND_NS} s may wait: push later, or interrupt"
            )
        self._put(Push(self.epoch, samples, sample_rate_hz, self._clock.now_ns()), length_ns)

    def end_sentence(self) -> None:
        """What was pushed is all that there is to say for now."""
        self._put(Push(self.epoch, np.zeros(0, np.float32), SAMPLE_RATE_HZ, self._clock.now_ns(), last=True), 0)

    def drive(self, lips: np.ndarray) -> None:
        """From now on show lips [12] of another face, until the next ones come; what is pushed is only heard."""
        with self._lock:
            self._driven, self._sentence = True, None
            self._lips.append(self._playback.position_ns() + MARGIN_NS, lips)

    def interrupt(self) -> int:
        """Silence, and a mouth that closes; gives the new epoch. What was pushed before is not heard any more."""
        with self._lock:
            self.epoch += 1
            self._sentence = None
            self._heard.clear()
            now_ns = self._playback.flush()
            if now_ns <= self._lips.end_ns:
                self._lips.cut(now_ns)
                self._lips.append(now_ns + CUT_NS, self._face().closed)
        self._wake()
        return self.epoch

    @property
    def speaking(self) -> bool:
        """Whether sound that was pushed is being heard, or about to be."""
        with self._lock:  # what is taken up is neither waiting nor a sentence for a moment
            return self._sentence is not None or self.waiting_ns > 0

    @property
    def waiting_ns(self) -> int:
        """How much sound waits to be heard."""
        return self._waiting_ns + self._playback.queued_ns

    def mouth_at(self, pts_ns: int) -> np.ndarray | None:
        """The lips [12] of a time; None while nobody speaks: the closed mouth. Lips that are late are waited for a step, then it closes."""
        beyond_ns = pts_ns - self._lips.end_ns - (DRIVEN_HOLD_NS if self._driven else STEP_NS)
        lips = self._lips.at(pts_ns)
        if beyond_ns <= 0 or lips is None:
            return lips
        if beyond_ns >= CUT_NS:
            return None
        return lips + (self._face().closed - lips) * np.float32(beyond_ns / CUT_NS)

    def recover(self) -> None:
        """Give up the lips of the sentence that made the line fail; its sound that waits for them is heard without."""
        with self._lock:
            sentence, self._sentence = self._sentence, None
            if sentence is not None and sentence.held:
                self._playback.put(np.concatenate(sentence.held))

    def poll(self) -> int:
        """Take up what was pushed, make the lips that are due; gives the nanoseconds until there is more to do."""
        more = self._take_up()
        wait_ns = self._go_on(more)
        return 0 if more else wait_ns

    def _go_on(self, more: bool) -> int:
        """Make the lips that are due; ``more`` waits to be taken up. Gives the nanoseconds until the next are."""
        now_ns = self._playback.position_ns()
        self.counters.left += self._lips.forget(now_ns - KEPT_NS)
        self._measure(now_ns)
        sentence = self._sentence
        if sentence is None:
            return SECOND_NS
        if sentence.start_ns is not None and sentence.lips_end_ns > now_ns + AHEAD_NS:
            return LISTEN_NS
        if not (ready := min(len(sentence.unheard) // SAMPLES_PER_STEP, AT_ONCE_STEPS) * SAMPLES_PER_STEP):
            if more or not self._needs_silence(sentence, now_ns):
                return LISTEN_NS
            self._add_silence(sentence)
            ready = SAMPLES_PER_STEP
        self._make(sentence, ready)
        return 0

    def load(self) -> None:
        """Load the networks of speech, so that the first sentence does not wait for them."""
        self._networks.load("speech_encoder", "audio_to_lips")

    def _put(self, push: Push, length_ns: int) -> None:
        try:
            self._pushes.put(push)
        except TimeoutError:
            raise UserError(f"push_audio: {WAITING} pieces wait to be taken up, no more may; push larger pieces, or later") from None
        with self._lock:
            self._waiting_ns += length_ns
        self._wake()

    def _take_up(self) -> bool:
        """Some of what was pushed; gives whether there may be more."""
        for _ in range(TAKEN_AT_ONCE):
            try:
                push = self._pushes.get(0)
            except TimeoutError:
                return False
            with self._lock:
                self._waiting_ns -= len(push.samples) * SECOND_NS // push.sample_rate_hz
                if push.epoch != self.epoch:
                    self._pushes.counters.dropped += 1
                elif self._driven:
                    self._only_hear(push)
                elif self._sentence is not None or not push.last:
                    self._take(push)
        return True

    def _take(self, push: Push) -> None:
        if self._sentence is None:
            ahead = LOOK_AHEAD_STEPS if len(push.samples) * SECOND_NS < AT_ONCE_NS * push.sample_rate_hz else MORE_LOOK_AHEAD_STEPS
            to_lips = SpeechToLips(self._networks, *self._face(), new_steps=1, look_ahead=ahead)
            self._sentence = Sentence(to_lips, push.pushed_ns, push.pushed_ns)
        sentence = self._sentence
        sentence.ended = push.last
        if push.last:
            self._let_go(sentence)
            return
        sentence.pushed_ns, sentence.silence_ns = push.pushed_ns, 0
        if sentence.inflow is None or sentence.inflow.sample_rate_hz != push.sample_rate_hz:
            self._let_go(sentence)
            sentence.inflow = Inflow(push.sample_rate_hz, self._playback.sample_rate_hz)
        waiting_ns = self._playback.queued_ns
        at_ns = self._hear(sentence, *sentence.inflow.push(push.samples, push.pushed_ns, waiting_ns))
        if at_ns is not None and waiting_ns < PROMPT_NS:
            self._heard.append((at_ns, push.pushed_ns))

    def _only_hear(self, push: Push) -> None:
        if self._inflow is None or self._inflow.sample_rate_hz != push.sample_rate_hz:
            self._inflow = Inflow(push.sample_rate_hz, self._playback.sample_rate_hz)
        ear, _ = self._inflow.flush() if push.last else self._inflow.push(push.samples, push.pushed_ns, self._playback.queued_ns)
        self._playback.put(ear, self._playback.position_ns() + MARGIN_NS)

    def _let_go(self, sentence: Sentence) -> None:
        """Take what the resamplers still hold."""
        if sentence.inflow is not None:
            self._hear(sentence, *sentence.inflow.flush())

    def _hear(self, sentence: Sentence, for_ear: np.ndarray, for_lips: np.ndarray) -> int | None:
        """Queue sound for the lips and, once the sentence has its place, for the ear; gives its media time."""
        sentence.unheard.put(for_lips)
        if sentence.start_ns is None:
            sentence.held.append(for_ear)
            return None
        at_ns = self._playback.put(for_ear)
        # Where the output ran dry before this came, what follows is later than the sentence's own count.
        sentence.start_ns += max(0, at_ns - sentence.start_ns - sentence.sound * SECOND_NS // self._playback.sample_rate_hz)
        sentence.sound += len(for_ear)
        return at_ns

    def _make(self, sentence: Sentence, count: int) -> None:
        """The lips that the next samples make possible, and their place in media time."""
        sentence.to_lips.speak_as(*self._face())
        lips = sentence.to_lips.push(sentence.unheard.take(count))
        with self._lock:
            if sentence is not self._sentence:  # interrupted, or recovered, meanwhile
                return
            if len(lips) and sentence.start_ns is None:
                self._start(sentence)
            now_ns = self._playback.position_ns()
            for vector in lips:
                self.counters.entered += 1
                self.counters.late += sentence.lips_end_ns < now_ns
                self._lips.append(sentence.lips_end_ns, vector)
                sentence.steps += 1
            if sentence.silence_ns >= CLOSING_NS:
                self._sentence = None

    def _start(self, sentence: Sentence) -> None:
        """The sentence's place: as soon as a picture can be made of its lips, and after what is being said."""
        sound, sentence.held = np.concatenate(sentence.held), []
        sentence.start_ns = self._playback.put(sound, self._playback.position_ns() + MARGIN_NS)
        sentence.sound = len(sound)
        self._lips.append(sentence.start_ns - STEP_NS, self._face().closed)
        self._heard.append((sentence.start_ns, sentence.first_ns))

    def _needs_silence(self, sentence: Sentence, now_ns: int) -> bool:
        """Whether the lips must go on without more sound: there is none, or it comes too late."""
        if sentence.ended:
            return True
        if sentence.start_ns is None:  # a first piece too short to make lips of
            return self._clock.now_ns() - sentence.pushed_ns > LOOK_AHEAD_STEPS * STEP_NS
        return sentence.lips_end_ns < now_ns + URGENT_NS

    def _add_silence(self, sentence: Sentence) -> None:
        """One step of silence at the end of what was pushed, for the lips and for the ear."""
        with self._lock:
            self._let_go(sentence)
            short = -len(sentence.unheard) % SAMPLES_PER_STEP or SAMPLES_PER_STEP
            for_ear = np.zeros(short * self._playback.sample_rate_hz // SAMPLE_RATE_HZ, np.float32)
            self._hear(sentence, for_ear, np.zeros(short, np.float32))
            sentence.silence_ns += STEP_NS

    def _measure(self, now_ns: int) -> None:
        """Take note of pushes whose sound is heard by now."""
        clock_ns = self._clock.now_ns()
        while self._heard and self._heard[0][0] <= now_ns:
            at_ns, pushed_ns = self._heard.popleft()
            self.latency_ms.add((clock_ns - (now_ns - at_ns) - pushed_ns) / 1e6)
