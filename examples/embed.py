"""A face speaks a file: aloud where there is a loudspeaker, in a window where there is a display, else into a video.

python examples/embed.py face.mp4 speech.wav result.mp4
"""

import sys

from flashlips_edge.arguments import one_sentence
from flashlips_edge.errors import UserError
from flashlips_edge.media import audio_file, loudspeaker, recorder, window
from flashlips_edge.session import LipSync

with one_sentence("embed"):
    if len(sys.argv) != 4:
        raise UserError(f"{len(sys.argv) - 1} arguments are given: it takes a face, a speech and a result")
    sound = audio_file.read_sound(sys.argv[2], alone=True)
    with LipSync.open(avatar=sys.argv[1], loudspeaker=loudspeaker.why_none() is None) as face:
        screen = window.Window("A face that speaks") if window.why_none() is None else None
        if screen is None:
            face.add_sink("file", recorder.Recorder(sys.argv[3], face.frame_rate))
        face.push_audio(sound.samples, sound.sample_rate_hz)
        face.say_silence()
        for frame in face.frames():  # uint8 RGB frame.image, [height, width, 3]
            if face.said_everything or (screen is not None and not screen.show(frame)):
                break
