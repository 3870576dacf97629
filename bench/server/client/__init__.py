"""The load generator: a process of its own on a core of its own, in a closed loop, on raw sockets and `epoll`.

A client that is dearer than the server measures itself. This one takes some 10 us per request over HTTP and 15 over
gRPC, which is why there is neither asyncio nor a client library in it.
"""
