"""Who may speak with the inference ports, and how: certificates and API keys, read from files and read again.

Imported where there are any; `scopes` alone is known to all.
"""
