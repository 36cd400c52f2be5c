"""The editor's first convolution over a map and the lips vector, whose 12 constant channels are never made: what they add is a
vector per sample, without the taps that fall outside at the border."""
