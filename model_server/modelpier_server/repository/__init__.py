"""Brings models onto this machine and proves that they are the bytes that the plan means.

`lifecycle` calls `fetch.Repository.fetch` from a worker thread, once per planned model; nothing here knows of plans
or of serving.

    fetch -> uri | credentials | local | remote -> download -> blobs
"""
