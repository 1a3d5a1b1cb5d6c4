"""Neural models behind the systems. Importing them loads neither torch nor transformers."""
