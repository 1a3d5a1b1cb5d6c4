"""Recipes: what makes the checkpoints of `systems.checkpoints`, and trains systems on tasks."""

CHECKPOINTS = {
    "mini-lm": "systems.training.language:MiniLM",
    "mini-lm-mixtures": "systems.training.language:MiniLMMixtures",
    "mini-llama": "systems.training.language:MiniLlama",
    "mini-selector": "systems.training.language:MiniSelector",
    "mini-e5": "systems.training.ranking:MiniE5",
    "mini-cross-encoder": "systems.training.ranking:MiniCrossEncoder",
}
"""Those of the shipped checkpoints that a generated world teaches, by the name of each."""
TABLE = {
    **CHECKPOINTS,
    "dro": "systems.dro.training:Dro",
    "retrollm": "systems.retrollm.training:RetroLLM",
    "raggd": "systems.raggd.training:RagGd",
}
