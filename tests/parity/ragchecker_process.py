"""RAGChecker's package with a scripted judge, on a question for each of some replies (standard
input); on standard output what it makes of each, and whether a file named ran was there then.
``open`` leaves its hole open, to show that there is one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ragchecker import RAGChecker, RAGResults

from systems.judges.ragchecker import shut

given = json.load(sys.stdin)
unread = shut() if sys.argv[1] == "shut" else []


def judged(claims: str) -> dict[str, Any]:
    """The question when the model writes this of claims, and the same labels always."""
    results = RAGResults.from_dict({"results": [given["question"]]})
    RAGChecker(
        custom_llm_api_func=lambda prompts: [
            claims if "### KG" in prompt else given["labels"] for prompt in prompts
        ]
    ).evaluate(results)
    ran = Path("ran").exists()
    Path("ran").unlink(missing_ok=True)
    found: dict[str, Any] = json.loads(results.to_json())["results"][0]
    return {"row": found, "ran": ran}


print(json.dumps({"judged": list(map(judged, given["replies"])), "unread": sum(unread)}))
