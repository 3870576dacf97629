"""The life of models in a server: which are planned, how far each has come, and which of them requests can reach.

Everything here runs on the event loop and changes state only there; what blocks (fetching, loading, warming up) goes
to threads.

    follower -> bringup -> board -> catalog        who serves what
    watch | admin -> plans                         how plans come in
"""
