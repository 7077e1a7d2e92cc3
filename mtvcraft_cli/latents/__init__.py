"""Picture and motion tokens -> latents -> frames: the transformer, the VAE, the sampler, and the walk over windows."""
