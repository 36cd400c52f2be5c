"""Frame and audio sources and sinks: video files, sound files, cameras, microphones, windows.

`frames.Frame` is what passes between them; `VideoFile` and `Camera` give frames, `VideoWriter` and `Window` take them.
"""
