"""MTVCraft: a picture and a driving video give a video of the picture's character doing the driver's motion."""

__version__ = "0.1.0"
