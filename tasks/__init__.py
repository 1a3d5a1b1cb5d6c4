"""The tasks that come with the harness. Nothing is imported before it is used."""

TABLE = {
    "hotpotqa": "tasks.hotpotqa:HotpotQA",
    "musique": "tasks.musique:MuSiQue",
    "2wikimultihopqa": "tasks.twowiki:TwoWiki",
    "triviaqa": "tasks.triviaqa:TriviaQA",
    "triviaqa-long": "tasks.triviaqa:TriviaQALong",
    "msmarco-qa": "tasks.msmarco:MSMarcoQA",
    "msmarco-dev": "tasks.msmarco:MSMarcoDev",
    "msmarco-dl19": "tasks.msmarco:MSMarcoDL19",
    "msmarco-dl20": "tasks.msmarco:MSMarcoDL20",
    "jsonl": "tasks.jsonl:Jsonl",
    "yaml": "tasks.described:Described",
    "mini-hotpotqa": "tasks.mini.tasks:MiniHotpotQA",
    "mini-musique": "tasks.mini.tasks:MiniMuSiQue",
    "mini-2wikimultihopqa": "tasks.mini.tasks:MiniTwoWiki",
    "mini-triviaqa": "tasks.mini.tasks:MiniTriviaQA",
    "mini-triviaqa-long": "tasks.mini.tasks:MiniTriviaQALong",
    "mini-forms": "tasks.mini.tasks:MiniForms",
    "mini-msmarco": "tasks.mini.tasks:MiniMSMarco",
}
