"""A face that is made to speak: networks, lips, identity, avatar, and `Talker`, which joins them.

No clock, no devices: whoever calls says what time it is. Files are worked on through `Talker`, live faces through `session`.
"""
