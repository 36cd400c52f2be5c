"""A face speaks a file: aloud where there is a loudspeaker, in a window where there is a display, else into a video.

python examples/embed.py face.mp4 speech.wav result.mp4
"""

import sys

from flashlips_edge.media import loudspeaker, window
from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.recorder import Recorder
from flashlips_edge.session import LipSync

avatar, speech, result = sys.argv[1:]
sound = read_sound(speech)
with LipSync.open(avatar=avatar, loudspeaker=loudspeaker.why_none() is None) as face:
    screen = window.Window("A face that speaks") if window.why_none() is None else None
    if screen is None:
        face.add_sink("file", Recorder(result, face.frame_rate))
    face.push_audio(sound.samples, sound.sample_rate_hz)
    face.say_silence()
    for frame in face.frames():  # uint8 RGB frame.image, [height, width, 3]
        if face.said_everything or (screen is not None and not screen.show(frame)):
            break
