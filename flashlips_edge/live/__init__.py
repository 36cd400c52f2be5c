"""The lines of a live session: sound out, speech to lips, pictures, show, sinks. `session.LipSync` joins them.

Each line has `poll`, which does what is due and says how long there is nothing to do; a pump.Worker calls it in a thread, a simulation
calls it with a clock of its own.
"""
