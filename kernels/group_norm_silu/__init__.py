"""Group normalisation, modulation and SiLU in one, with an optional residual added first; forward and backward.

One pass over memory where a group fits in a program, two where not.
"""
