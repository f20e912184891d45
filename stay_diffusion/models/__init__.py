"""The network: encoder, middle and decoder of guided-diffusion's U-Net, its decoder norms modulated by a layout.

Letters at line ends: B batch, O objects (with background: O+1), C channels, H W pixels, K classes, P products,
D code width, E time-embedding width, M mask side, T tokens of attention, N heads (of attention) or codes (of a
layout, background not counted), R rows of the fused norm's products, S channels of a semantic map, n layouts that see
each x (2 under guidance).
"""
