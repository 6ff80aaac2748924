"""How far apart the views of the rendered benchmarks are, measured by a plain ViT."""
