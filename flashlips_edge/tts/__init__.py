"""Text to speech by other programs: `open_voice("espeak:en-gb")` or `open_voice("piper:voice.onnx")` gives a `Voice`.

Nothing of them is loaded into this process; each text is spoken by a process of its own, which `stop` ends.
"""
