"""Every figure of one result under one speech."""

from __future__ import annotations

import numpy as np

from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.landmarks import lips_of
from flashlips_edge.evaluation.metrics import (
    STILL_LEVELS,
    STILL_LIPS,
    STILL_OPENING,
    best_lag,
    correlation,
    detail,
    jitter,
    mouth_box,
    moving,
    partial_correlation,
    psnr,
    spread,
    ssim,
)
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.evaluation.self_drive import paste_weight
from flashlips_edge.evaluation.takes import Result, Speech
from flashlips_edge.speech.features import SAMPLE_RATE_HZ

LEAST_RANGE = 0.25  # of the recorded range
SETTLING_NS = 200_000_000  # what the mouth may take to close


def picture(result: Result, judges: Judges) -> dict[str, float]:
    """Against the source's own frames, which the result should equal when it speaks the source's own sound:

    mouth_db, mouth_ssim  PSNR and SSIM of the mouth box
    face_db, face_ssim    of the whole crop
    lpips                 of the whole crop"""
    truth = result.clip.crops[result.positions]
    found = {
        "mouth_db": np.mean([psnr(mouth_box(a), mouth_box(b)) for a, b in zip(result.crops, truth)]),
        "mouth_ssim": np.mean([ssim(mouth_box(a), mouth_box(b)) for a, b in zip(result.crops, truth)]),
        "face_db": np.mean([psnr(a, b) for a, b in zip(result.crops, truth)]),
        "face_ssim": np.mean([ssim(a, b) for a, b in zip(result.crops, truth)]),
    }
    if judges.lpips is not None:
        found["lpips"] = judges.lpips(result.crops, truth)
    return {name: float(value) for name, value in found.items()}


def lips(result: Result, speech: Speech, judges: Judges) -> dict[str, float]:
    """Against what the speech's own recording shows, as far as the judges are at hand:

    correlation, range, lag_frames  of the opening: with the recorded one, as a share of its spread, off it in time (its size)
    heard_correlation               of the opening, over the frames at which a voice is heard
    landmark_distance               of the lip points' motion, in distances between the outer eye corners
    leak                            correlation with the source's own opening beyond what the speech explains, its size: clips with and
                                    against the source would else make a mean of none; not of its own speech
    sync_confidence, sync_offset    SyncNet's; the offset's size in frames
    detail                          of the mouth box, over the source's: 1 where as sharp, less where soft
    identity                        cosine with the source's faces
    jitter, lip_jitter              second difference over time, of the pixels that may change and of the lip points, over the source's

    UserError where the source or the recording does not move."""
    result = result.until(len(speech.sound) * 1_000_000_000 // SAMPLE_RATE_HZ)
    source = result.clip.crops[result.positions]
    changes = paste_weight(source.shape[1]) > 0
    found = {
        "jitter": jitter(result.crops[:, changes]) / moving(jitter(source[:, changes]), STILL_LEVELS, "the source's picture"),
        "detail": sum(detail(mouth_box(crop)) for crop in result.crops) / max(sum(detail(mouth_box(crop)) for crop in source), 1e-6),
    }
    if judges.identity is not None:
        found["identity"] = judges.identity(result.crops, source)
    sync = judges.sync(result.crops, result.pts_ns, speech.sound) if judges.sync is not None else None
    if sync is not None:
        found |= {"sync_confidence": sync.confidence, "sync_offset": float(abs(sync.offset))}
    if result.points is not None and speech.openings is not None and speech.motion is not None:
        assert result.clip.points is not None
        truth, own = speech.openings[result.positions], result.clip.openings[result.positions]
        heard = speech.heard(result.pts_ns)
        way, own_lips = result.motion - speech.motion[result.positions], lips_of(result.clip.points[result.positions])
        found |= {
            "correlation": correlation(result.openings, truth),
            "range": spread(result.openings) / moving(spread(truth), STILL_OPENING, "the mouth that the speech was recorded from"),
            "lag_frames": float(abs(best_lag(result.openings, truth))),
            "landmark_distance": float(np.linalg.norm(way, axis=-1).mean()),
            "lip_jitter": jitter(result.motion) / moving(jitter(own_lips), STILL_LIPS, "the source's mouth"),
        }
        if heard.any():
            found["heard_correlation"] = correlation(result.openings[heard], truth[heard])
        if not np.allclose(own, truth):
            found["leak"] = abs(partial_correlation(result.openings, own, truth))
    return found


def bound(speech: Speech, clip: Recording) -> dict[str, float]:
    """The recorded opening's correlation with itself closed wherever no voice is heard: what lips that follow the voice can reach."""
    assert speech.openings is not None
    closed = np.percentile(speech.openings, 5)
    return {"correlation": correlation(np.where(speech.heard(clip.pts_ns), speech.openings, closed), speech.openings)}


def silence(silent: Result, spoken: Result) -> dict[str, float]:
    """Opening above the clip's closed reading as a share of the same clip's maximum in speech, from 200 ms on: mean and 95th percentile.

    The maximum counts as a quarter of the recorded one at least: a mouth that hardly opens is not thereby judged by nothing. Less than
    none is no merit: a mouth that is smeared over reads as shut tighter than it ever was."""
    recorded = silent.clip.openings
    closed = float(np.percentile(recorded, 5))
    widest = max(float(spoken.openings.max()), closed + LEAST_RANGE * (float(recorded.max()) - closed))
    share = (silent.openings[silent.pts_ns >= SETTLING_NS] - closed) / moving(widest - closed, STILL_OPENING, "the mouth")
    return {"share": float(share.mean()), "worst": float(np.percentile(share, 95))}
