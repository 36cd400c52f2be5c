"""Moves frames and sound between threads: a clock, mailboxes, stages, counters. Knows nothing of networks.

Every queue has a bound, every wait a deadline, every drop a counter; no thread sleeps.
"""
