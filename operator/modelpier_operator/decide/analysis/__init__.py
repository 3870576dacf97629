"""Is the candidate as good as the stable version? Pure; the rollout asks at every scrape of the servers.

`tally` makes what happened since the last scrape from the servers' counters, `looking.look` adds it to the evidence
(`state`) and answers: CONTINUE, PASS, FAIL or PAUSE. `gates` says what is allowed. docs/explanation/analysis.md tells
what is compared and why.
"""
