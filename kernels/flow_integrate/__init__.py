"""The whole integration of a window of audio to lips in two launches: one matrix product for every step's modulation, and one kernel
whose programs stay on the GPU and wait for each other between layers."""
