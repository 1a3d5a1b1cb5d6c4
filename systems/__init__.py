"""The systems that come with the harness. Nothing is imported before it is used."""

TABLE = {
    "random": "systems.random:Random",
    "bm25": "systems.bm25:BM25",
    "e5": "systems.e5:E5",
    "query-likelihood": "systems.query_likelihood:QueryLikelihood",
    "rico": "systems.rico.system:Rico",
    "rico-state": "systems.rico.system:RicoState",
    "rico-soup": "systems.rico.system:RicoSoup",
    "dro": "systems.dro.system:Dro",
    "retrollm": "systems.retrollm.system:RetroLLM",
    "raggd": "systems.raggd.system:RagGd",
    "cross-encoder": "systems.cross_encoder:CrossEncoder",
    "trec": "systems.external:Trec",
    "predictions": "systems.external:Predictions",
    "imported": "systems.external:Imported",
    "reader": "systems.reader:Reader",
}
