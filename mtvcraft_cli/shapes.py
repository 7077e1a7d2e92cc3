"""What is handed from room to room.

T frames of a clip, J = 24 joints, W windows, P pieces, N frames of a window or piece, F latent frames of a window,
M = F * J motion tokens, D token width, H x W pixels, h x w latent pixels (an eighth), C latent channels.

Files, frames and joints are NumPy arrays, so `mtvcraft pose` runs without a GPU library's memory; from the tokens
on everything is a tensor. Under pytest, jaxtyping checks each call that names one of these.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8
from torch import Tensor

Picture = UInt8[np.ndarray, "H W 3"]
"""The character; RGB, 0..255."""
Frames = UInt8[np.ndarray, "T H W 3"]
"""Frames of a clip in order; RGB, 0..255."""
Pieces = Int[np.ndarray, "P N"]
"""Places of frames in a clip, counted from 0: one row for each piece that is measured by itself."""
JointsMm = Float32[np.ndarray, "T 24 3"]
"""SMPL-24 joints in camera space: x right, y down, z away; millimetres."""
Confidence = Float32[np.ndarray, "T 24"]
"""How sure the estimator is of each joint; 0..1."""
Observed = Bool[np.ndarray, " T"]
"""False where the frame was filled in."""
Joints = Float[Tensor, "W N J 3"]
"""Joints of windows in spreads around the training mean; no unit."""
MotionLatents = Float[Tensor, "W F J D"]
"""What the tokenizer's encoder makes of windows, before quantisation."""
Codes = Int[Tensor, "W F J"]
"""Codebook indices of windows."""
CodesFile = Int32[np.ndarray, "W F 24"]
"""The same as they lie in `NAME.tokens.npy`."""
MotionTokens = Float[Tensor, "B M D"]
"""Codebook vectors, frame after frame, joint after joint: token = frame * 24 + joint."""
Table = Float[Tensor, "*batch S K"]
"""Rotary cos or sin per token and head column; columns 2i and 2i + 1 are equal."""
Latents = Float[Tensor, "B F C h w"]
"""Video latents as CogVideoX orders them."""
Video = Float[Tensor, "B 3 T H W"]
"""Decoded or to be encoded; RGB, -1..1."""
