#!/usr/bin/env python3
"""The local cluster's command line: `python3 cluster/cluster.py --help`. Needs nothing but Python 3.11."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from modelpier_cluster.cli import main

sys.exit(main())
