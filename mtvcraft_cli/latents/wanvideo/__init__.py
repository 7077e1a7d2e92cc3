"""What surrounds the large transformer: text, picture and mask conditions, the VAE, the sampler, LoRA, sizes."""
