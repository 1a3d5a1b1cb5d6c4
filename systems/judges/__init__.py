"""The judges of claims that come with the harness. Nothing is imported before it is used."""

TABLE = {
    "exact": "harness.score.judging:Exact",
    "endpoint": "systems.judges.asking:EndpointJudge",
    "model": "systems.judges.asking:ModelJudge",
    "labels": "systems.judges.labels:Labels",
}
