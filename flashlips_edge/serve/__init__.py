"""A live face as a local service: WebSocket for any program, WebRTC for a browser, health for whoever watches over it.

`python -m flashlips_edge.serve` starts it; docs/serve.md is its message table, made from messages.py.
"""
