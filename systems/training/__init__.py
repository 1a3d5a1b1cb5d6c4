"""Recipes that make the checkpoints of `systems.checkpoints` from the generated world."""

TABLE = {
    "mini-lm": "systems.training.language:MiniLM",
    "mini-lm-mixtures": "systems.training.language:MiniLMMixtures",
    "mini-llama": "systems.training.language:MiniLlama",
    "mini-selector": "systems.training.language:MiniSelector",
    "mini-e5": "systems.training.ranking:MiniE5",
    "dro": "systems.dro.training:Dro",
    "mini-cross-encoder": "systems.training.ranking:MiniCrossEncoder",
}
