"""Frame and audio sources and sinks: video files, sound files, cameras, sound devices, recordings, windows.

`frames.Frame` is what passes between them; `VideoFile`, `Camera` and `CameraFeed` give frames, `VideoWriter`, `Recorder`, `VirtualCamera`
and `Window` take them.
"""
